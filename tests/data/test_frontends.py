"""Frontends against their definitions, written out here in float64."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from doppel_ray.data.frontends import Frontend, FrontendConfig

RATE = 16000
EDGES_HZ = 700.0 * (np.exp(np.linspace(1127 * math.log(1 + 125 / 700), 1127 * math.log(1 + 7500 / 700), 66) / 1127) - 1)


def vggish(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-mel features (96, 64) of the first 0.96 s of a sound at 16 kHz (Hershey et al., 2017)."""

    def mel(hz: float) -> float:
        return 1127.0 * math.log(1.0 + hz / 700.0)

    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)])  # periodic Hann, 25 ms
    magnitude = np.stack([np.abs(np.fft.rfft(sound[160 * k : 160 * k + 400] * window, 512)) for k in range(96)])
    matrix = np.zeros((257, 64))
    for bin_ in range(1, 257):  # the DC bin belongs to no band
        place = mel(bin_ * RATE / 512)
        for band in range(64):
            lower, centre, upper = (mel(EDGES_HZ[band + k]) for k in range(3))
            matrix[bin_, band] = max(0.0, min((place - lower) / (centre - lower), (upper - place) / (upper - centre)))
    return np.log(magnitude @ matrix + 0.01)


def frontend(kind: str, rate: int = RATE, **settings: float) -> Frontend:
    return FrontendConfig.model_validate({"kind": kind, **settings}).build(rate)


def probes(level: float) -> NDArray[np.float64]:
    """Noise, a chirp, clicks and silence, a second each: (4, 16000)."""
    random = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    noise = level * random.uniform(-1, 1, RATE)
    chirp = level * np.sin(2 * np.pi * (100 + 3700 * time) * time)
    clicks = np.where(random.random(RATE) < 0.001, level, 0.0)
    return np.stack([noise, chirp, clicks, np.zeros(RATE)])


@pytest.mark.parametrize("level", [1.0, 0.05])
def test_vggish_equals_its_definition(level: float) -> None:
    sounds = probes(level)
    found = FrontendConfig().build(RATE)(torch.tensor(sounds, dtype=torch.float32))
    assert found.shape == (4, 1, 96, 64)
    for sound, features in zip(sounds, found[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(features, vggish(sound), atol=1e-3)
        assert np.abs(features - vggish(sound)).mean() < 1e-4


def test_vggish_of_silence() -> None:
    features = FrontendConfig().build(RATE)(torch.zeros(1, RATE))
    torch.testing.assert_close(features, torch.full((1, 1, 96, 64), math.log(0.01)))


@pytest.mark.parametrize("hz", [220.0, 1000.0, 6000.0])
def test_vggish_band_of_a_tone(hz: float) -> None:
    """A tone is loudest in a band that holds it."""
    tone = torch.sin(2 * math.pi * hz * torch.arange(RATE) / RATE).unsqueeze(0)
    band = int(FrontendConfig().build(RATE)(tone)[0, 0].mean(dim=0).argmax())
    assert EDGES_HZ[band] < hz < EDGES_HZ[band + 2]


def test_vggish_frames_of_training_windows() -> None:
    """A training window has whole examples of 96 frames, a shorter sound all its frames."""
    vggish = FrontendConfig().build(RATE)
    assert [vggish(torch.zeros(1, n)).shape[2] for n in (400, 4000, RATE, 5 * RATE)] == [1, 23, 96, 480]


def test_vggish_every_frame() -> None:
    """A clip read whole has all of its frames, of which the first are those of a training window."""
    whole, sound = FrontendConfig().build(RATE, every_frame=True), torch.randn(1, 30400)
    assert [whole(torch.zeros(1, n)).shape[2] for n in (400, 4000, RATE, 30400, 5 * RATE)] == [1, 23, 98, 188, 498]
    torch.testing.assert_close(whole(sound)[:, :, :96], FrontendConfig().build(RATE)(sound))


def test_vggish_refuses_a_sound_shorter_than_a_window() -> None:
    with pytest.raises(ValueError, match="399 samples is shorter than one window of 400"):
        FrontendConfig().build(RATE)(torch.zeros(1, 399))


def test_vggish_frame_rate_at_other_sample_rates() -> None:
    assert FrontendConfig().build(44100)(torch.zeros(2, 44100)).shape == (2, 1, 96, 64)


def clar(sound: NDArray[np.float64], window: int) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """The transform of a second at CLAR's 128 frequencies, and its power in 128 mel bands, both (126, 128).

    As nnAudio's STFT(n_fft=2048, freq_bins=128, freq_scale="log", fmin=40, fmax=8000) and MelSpectrogram do, with the
    window in the middle of the 2048 samples.
    """
    before = (2048 - window) // 2
    hann = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window), (before, 2048 - window - before))
    padded = np.pad(sound, 1024, mode="reflect")
    framed = np.stack([padded[128 * k : 128 * k + 2048] for k in range(126)]) * hann
    hz = 40 * np.exp(np.arange(128) * math.log(8000 / 40) / 128)
    spectrum = framed @ np.exp(-2j * np.pi * np.outer(np.arange(2048), hz / RATE))

    def to_mel(hz: float) -> float:  # Slaney's scale: linear to 1000 Hz, logarithmic above
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    mel = np.linspace(to_mel(40), to_mel(8000), 130)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))
    bin_hz = np.arange(1025) * RATE / 2048
    bands = np.zeros((1025, 128))
    for band in range(128):
        lower, centre, upper = edges[band : band + 3]
        triangle = np.minimum((bin_hz - lower) / (centre - lower), (upper - bin_hz) / (upper - centre))
        bands[:, band] = np.maximum(triangle, 0) * 2 / (upper - lower)
    return spectrum, np.abs(np.fft.rfft(framed)) ** 2 @ bands


@pytest.mark.parametrize("window", [256, 2048], ids=["the paper's window", "the code's window"])
def test_clar_equals_its_definition(window: int) -> None:
    sounds = probes(1.0)
    found = frontend("clar", window=window / RATE)(torch.tensor(sounds, dtype=torch.float32)).double().numpy()
    assert found.shape == (4, 3, 126, 128)
    for sound, (magnitude, phase, mel) in zip(sounds, found, strict=True):
        spectrum, power = clar(sound, window)
        level = 10 * np.log10(np.abs(spectrum) ** 2 + 1e-8) - 20
        np.testing.assert_allclose(magnitude, level, atol=0.5)
        np.testing.assert_allclose(magnitude[level > -70], level[level > -70], atol=0.02)  # -100 is the floor
        np.testing.assert_allclose(mel, 10 * np.log10(np.maximum(power, 1e-5)) - 10, atol=0.02)
        turned = np.abs(
            np.exp(1j * phase) * np.abs(spectrum) - spectrum
        )  # the phase of what is next to nothing is free
        assert turned.max() < 1e-3


def test_clar_of_silence() -> None:
    magnitude, phase, mel = frontend("clar")(torch.zeros(1, RATE))[0]
    torch.testing.assert_close(magnitude, torch.full((126, 128), -100.0))
    torch.testing.assert_close(phase, torch.zeros(126, 128))
    torch.testing.assert_close(mel, torch.full((126, 128), -60.0))


def test_raw_returns_the_sound() -> None:
    sound = torch.randn(3, 100)
    assert torch.equal(frontend("raw")(sound), sound.unsqueeze(1))


@pytest.mark.parametrize("kind", ["vggish", "clar", "raw"])
@pytest.mark.parametrize("samples", [1600, RATE, 20001])
def test_frames_and_channels_match_features(kind: str, samples: int) -> None:
    part = frontend(kind)
    features = part(torch.zeros(2, samples))
    assert features.shape[:3] == (2, part.channels, part.frames(samples))
    assert features.ndim == {"spectrogram": 4, "waveform": 3}[part.domain]


@pytest.mark.parametrize("kind", ["vggish", "clar", "raw"])
def test_features_do_not_depend_on_the_batch(kind: str) -> None:
    sound = torch.randn(40, 4000, generator=torch.manual_seed(0))
    part = frontend(kind)
    whole = part(sound)
    if kind == "clar":  # the angle of a bin with next to nothing in it may turn: compare levels
        whole = whole[:, ::2]
    for size in (1, 7, 40):
        split = torch.cat([part(some) for some in sound.split(size)])
        torch.testing.assert_close(split[:, ::2], whole if kind == "clar" else whole[:, ::2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["vggish", "clar", "raw"])
def test_features_carry_gradients(kind: str) -> None:
    sound = torch.randn(2, 4000, requires_grad=True)
    frontend(kind)(sound).sum().backward()
    assert sound.grad is not None


@pytest.mark.parametrize(("kind", "rate"), [("vggish", 8000), ("clar", 15999)])
def test_low_sample_rate_is_refused(kind: str, rate: int) -> None:
    with pytest.raises(ValueError, match=f"sample_rate is {rate} Hz"):
        frontend(kind, rate)
