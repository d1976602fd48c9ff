"""Augmentations do what their names say, and are drawn by index: a pair gets the same one wherever it is made."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from doppel_ray.config.experiment import validate_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.data.augment import KINDS, Augment, Gain, ImpulseResponse, check_chain, read_chain
from doppel_ray.data.augment.vocoder import fast, vocode

RATE = 16000
SPECTRAL = ("spec_augment", "spec_mask")
WAVEFORM = tuple(kind for kind in KINDS if kind not in SPECTRAL)


def chain(*links: dict[str, Any], seed: int = 0) -> Augment:
    return Augment(read_chain(links), seed, RATE)


def augmented(kind: str, sound: Tensor, view: int = 0, seed: int = 0, **fields: Any) -> Tensor:
    """The rows of a batch, as pairs 0, 1, ..., through one augmentation."""
    augment = chain({"kind": kind, "p": 1.0, **fields}, seed=seed)
    apply = augment.features if kind in SPECTRAL else augment
    return apply(sound, torch.arange(len(sound)), view)


def material(kind: str, rows: int, samples: int = 4000) -> Tensor:
    """Sounds, or features, for one kind of augmentation."""
    random = torch.manual_seed(0)
    shape = (rows, 1, 96, 64) if kind in SPECTRAL else (rows, samples)
    return torch.rand(shape, generator=random) * 2 - 1


def tone(hz: float, seconds: float = 1.0) -> Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE)


def loudest(sound: Tensor) -> float:
    """Frequency of the highest peak in Hz."""
    window = torch.hann_window(len(sound))
    return torch.fft.rfft(sound * window, n=1 << 18).abs().argmax().item() * RATE / (1 << 18)


def level(sound: Tensor) -> Tensor:
    return sound.square().mean(dim=-1).sqrt()


# What holds for all of them


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_depends_on_seed_index_and_view(kind: str) -> None:
    batch = material(kind, 1).expand(24, *material(kind, 1).shape[1:])
    found = augmented(kind, batch)
    assert len(torch.unique(found.flatten(1), dim=0)) > 12
    for other in (augmented(kind, batch, view=1), augmented(kind, batch, seed=1)):
        same = (other == found).flatten(1).all(dim=1)
        assert same.float().mean() < 0.5


@settings(max_examples=10, deadline=None)
@given(kind=st.sampled_from(KINDS), rows=st.lists(st.integers(0, 19), min_size=1, max_size=20))
def test_augmentation_does_not_depend_on_the_batch(kind: str, rows: list[int]) -> None:
    batch, some = material(kind, 20), torch.tensor(rows)
    augment = chain({"kind": kind, "p": 0.7})
    apply = augment.features if kind in SPECTRAL else augment
    together = apply(batch, torch.arange(20), 0)[some]
    torch.testing.assert_close(apply(batch[some], some, 0), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_with_p_0(kind: str) -> None:
    """The output equals the input, and the input is never written to."""
    batch = material(kind, 6)
    kept = batch.clone()
    assert torch.equal(augmented(kind, batch, p=0.0), batch)
    augmented(kind, batch)
    assert torch.equal(batch, kept)


@pytest.mark.parametrize("kind", WAVEFORM)
@pytest.mark.parametrize("samples", [3, 1000, RATE])
def test_augmentations_of_extreme_sounds_are_finite(kind: str, samples: int) -> None:
    silence = torch.zeros(samples)
    click = silence.clone()
    click[samples // 2] = 1.0
    square = torch.where(torch.arange(samples) % 2 == 0, 1.0, -1.0)
    for sound in (silence, click, square, torch.ones(samples), 1e-20 * square):
        found = augmented(kind, sound.repeat(8, 1))
        assert found.shape == (8, samples)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()
        assert found.abs().max() < 20


@pytest.mark.parametrize("kind", sorted({*WAVEFORM} - {"time_mask"}))
def test_augmentations_of_silence(kind: str) -> None:
    assert not augmented(kind, torch.zeros(8, 4000)).any()


def test_share_of_augmented_views_is_p() -> None:
    found = chain({"kind": "gain", "p": 0.25})(torch.ones(4000, 4), torch.arange(4000), 0)
    assert abs((found[:, 0] != 1).float().mean() - 0.25) < 0.03


def test_chain_order_and_draws() -> None:
    """A chain applies its augmentations in order, each with its own draws."""
    sound, indices = material("gain", 50), torch.arange(50)
    gain, mask = (
        {"kind": "gain", "low": -20, "high": -20},
        {"kind": "time_mask", "p": 1.0, "fill": "constant", "level": 1},
    )
    assert (chain(gain, mask)(sound, indices, 0) == 1.0).sum(dim=1).ge(2000).all()
    torch.testing.assert_close(chain(mask, gain)(sound, indices, 0).amax(dim=1), torch.full((50,), 0.1))
    single, double = (20 * chain(*[{"kind": "gain"}] * n)(sound, indices, 0).div(sound)[:, 0].log10() for n in (1, 2))
    assert not torch.isclose(double, 2 * single).any()


# CLAR's families


def test_gain_range() -> None:
    gains = 20 * augmented("gain", torch.ones(4000, 4), low=-6.0, high=0.0)[:, 0].log10()
    assert gains.min() >= -6.001
    assert gains.max() <= 0.001
    assert abs(gains.mean() + 3.0) < 0.1


@pytest.mark.parametrize("shape", ["linear", "exponential", "logarithmic", "quarter_sine", "half_sine"])
def test_fade_shape_and_length(shape: str) -> None:
    """A fade rises from silence and falls to it, each over at most half of the clip."""
    envelope = augmented("fade", torch.ones(200, 4000), shapes=[shape])
    assert (envelope[:, [0, -1]] < 0.01).float().mean() > 0.99  # but for a fade of no length
    rising, falling = envelope[:, :1999].diff(dim=1), envelope[:, 2001:].diff(dim=1)
    assert (rising > -1e-6).all()
    assert (falling < 1e-6).all()
    assert (envelope[:, 1999:2001] > 0.99).all()
    faded_in = (envelope[:, :2000] < 0.999).float().mean(dim=1)
    assert faded_in.max() > 0.85  # a logarithmic fade is over a tenth before its end
    assert faded_in.min() < 0.1
    halfway = {"linear": 0.5, "exponential": 0.354, "logarithmic": 0.778, "quarter_sine": 0.707, "half_sine": 0.5}[
        shape
    ]
    longest = int(faded_in.argmax())
    end = round(faded_in[longest].item() * 2000)
    if shape != "logarithmic":
        assert envelope[longest, end // 2].item() == pytest.approx(halfway, abs=0.03)


def test_noise_ratio_range() -> None:
    sound = material("noise", 400) * 0.1
    added = augmented("noise", sound) - sound
    ratio = 20 * (level(sound) / level(added)).log10()
    assert -0.3 < ratio.min() < 1.0
    assert 19.0 < ratio.max() < 20.3
    assert abs(ratio.mean() - 10.0) < 1.0
    spectrum = torch.fft.rfft(added / level(added).unsqueeze(1)).abs().square().mean(dim=0)
    low, high = spectrum[1:1000].mean(), spectrum[1000:-1].mean()
    assert low / high == pytest.approx(1.0, abs=0.05), "white: as strong in the lower half of the band as in the upper"
    white = (added / level(added).unsqueeze(1)).flatten()
    assert (white**4).mean().item() == pytest.approx(3.0, abs=0.05), "Gaussian"


@pytest.fixture
def hums(tmp_path: Path) -> Path:
    """Recordings to mix in: tones of 3 s at 1 and 2 kHz, and one at 3 kHz that is shorter than a sound."""
    (tmp_path / "deep").mkdir()
    for name, hz, seconds in (("a.wav", 1000, 3.0), ("deep/b.flac", 2000, 3.0), ("c.wav", 3000, 0.1)):
        soundfile.write(tmp_path / name, 0.3 * tone(hz, seconds).numpy(), RATE)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("source", "white"), [("recordings", 0.0), ("mixed", 0.25)])
def test_recorded_noise_ratio_range(hums: Path, source: str, white: float) -> None:
    """Recordings are mixed in at ratios that fill their range."""
    sound = material("noise", 400) * 0.1
    added = augmented("noise", sound, source=source, recordings=str(hums)) - sound
    ratio = 20 * (level(sound) / level(added)).log10()
    assert -0.3 < ratio.min() < 1.0
    assert 19.0 < ratio.max() < 20.3
    spectrum = torch.fft.rfft(added / level(added).unsqueeze(1)).abs().square()
    tones = spectrum[:, [250, 500, 750]] / spectrum.sum(dim=1, keepdim=True)
    tonal = tones.amax(dim=1) > 0.9
    assert abs((~tonal).float().mean() - white) < 0.06
    chosen = torch.bincount(tones[tonal].argmax(dim=1)) / tonal.sum()
    assert (chosen - 1 / 3).abs().max() < 0.08, "each recording as often as another"
    starts = added[tonal, :16] / added[tonal, :16].square().mean(dim=1, keepdim=True).sqrt()
    assert len(torch.unique(starts.round(decimals=2), dim=0)) > 20, "from anywhere in it"


def test_unusable_noise_folder_is_refused(tmp_path: Path) -> None:

    def refused(**fields: Any) -> str:
        return refusal({"kind": "noise", **fields})

    assert f"augment.0, noise, cannot be applied: recordings is {tmp_path}" in refused(
        source="recordings", recordings=str(tmp_path)
    )
    assert "source is mixed and recordings is None; expected a folder" in refused(source="mixed")
    assert "none with white" in refused(recordings=str(tmp_path))
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    assert "1 of 1 recordings" in refused(source="mixed", recordings=str(tmp_path))


def test_silent_noise_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", torch.zeros(2 * RATE).numpy(), RATE)
    sound = material("noise", 3)
    assert torch.equal(augmented("noise", sound, source="recordings", recordings=str(tmp_path)), sound)


@pytest.mark.parametrize("fill", ["noise", "constant"])
def test_time_mask_length(fill: str) -> None:
    sound = 0.5 + 0.5 * material("time_mask", 200, RATE).abs()
    found = augmented("time_mask", sound, fill=fill)
    masked = found != sound
    assert (masked.sum(dim=1) == 2000).all()
    starts = masked.float().argmax(dim=1)
    assert torch.equal(starts + 1999, RATE - 1 - masked.flip(1).float().argmax(dim=1)), "one stretch"
    assert starts.min() < 500
    assert starts.max() > 13500
    inside = found[masked]
    assert inside.mean().item() == pytest.approx(0.01 if fill == "constant" else 0.0, abs=1e-4)
    assert inside.std().item() == pytest.approx(0.0 if fill == "constant" else 0.01, abs=1e-4)


@pytest.mark.parametrize(("kind", "furthest"), [("time_shift", 8000), ("shift", 4000)])
def test_shift_range_and_wrap(kind: str, furthest: int) -> None:
    clicks = torch.zeros(400, RATE)
    clicks[:, 0] = 1.0
    found = augmented(kind, clicks)
    assert (found.sum(dim=1) == 1.0).all()
    place = found.argmax(dim=1)
    shifts = torch.where(place > RATE // 2, place - RATE, place)
    assert furthest * 0.97 < shifts.abs().max() <= furthest
    assert abs(shifts.float().mean()) < 0.1 * furthest


def test_pitch_shift_by_an_octave() -> None:
    up = vocode(tone(440)[None], torch.tensor([1.0]), torch.tensor([2.0]), RATE)[0]
    assert loudest(up) == pytest.approx(880, abs=0.5)


@settings(max_examples=12, deadline=None)
@given(hz=st.floats(150, 2000), semitones=st.floats(-15, 15))
def test_pitch_shift_keeps_length_level_and_purity(hz: float, semitones: float) -> None:
    ratio = 2 ** (semitones / 12)
    found = vocode(0.5 * tone(hz)[None], torch.ones(1), torch.tensor([ratio]), RATE)[0]
    assert found.shape == (RATE,)
    middle = found[3000:-3000]
    assert 1200 * math.log2(loudest(middle) / (hz * ratio)) == pytest.approx(0.0, abs=5.0), "cents"
    assert level(middle).item() == pytest.approx(0.5 / math.sqrt(2), rel=0.05)
    spectrum = torch.fft.rfft(middle * torch.hann_window(10000)).abs().square()
    peak = int(spectrum.argmax())
    assert spectrum[max(peak - 25, 0) : peak + 26].sum() > 0.98 * spectrum.sum()


@settings(max_examples=12, deadline=None)
@given(hz=st.floats(150, 6000), speed=st.floats(0.5, 2.0))
def test_time_stretch_keeps_pitch_and_length(hz: float, speed: float) -> None:
    found = vocode(0.5 * tone(hz)[None], torch.tensor([speed]), torch.ones(1), RATE)[0]
    assert found.shape == (RATE,)
    end = min(round(RATE / speed), RATE)
    middle = found[1500 : end - 1500]
    assert loudest(middle) == pytest.approx(hz, rel=0.002)
    assert level(middle).item() == pytest.approx(0.5 / math.sqrt(2), rel=0.05)
    assert found[end + 1024 :].abs().max().item() < 0.01 if end + 1024 < RATE else True


@pytest.mark.parametrize("speed", [0.5, 0.75, 1.25, 2.0])
def test_time_stretch_moves_events(speed: float) -> None:
    sound = torch.zeros(RATE)
    sound[6000:6400] = tone(1000)[:400]
    found = vocode(sound[None], torch.tensor([speed]), torch.ones(1), RATE)[0]
    energy = found.square()
    centre = (energy * torch.arange(RATE)).sum() / energy.sum()
    assert centre.item() == pytest.approx(6200 / speed, abs=512), "to half a frame"


def test_pitch_shift_grid() -> None:
    """The grid of transpositions is finer than a third of a semitone."""
    asked = torch.linspace(-15, 15, 5000)
    found = 12 * fast(2 ** (asked / 12), RATE).log2()
    assert (found - asked).abs().max() < 0.3
    assert (found - asked).abs().mean() < 0.1
    assert fast(torch.tensor([0.5, 1.0, 2.0]), RATE).tolist() == [0.5, 1.0, 2.0]


def test_pitch_shift_does_not_alias() -> None:
    found = vocode(tone(6000)[None], torch.ones(1), torch.tensor([2.0]), RATE)[0]
    assert level(found[2000:-2000]).item() < 0.01


@pytest.mark.parametrize(
    ("kind", "fields"), [("pitch_shift", {"semitones": 2.0}), ("pitch_shift", {}), ("time_stretch", {})]
)
def test_time_stretch_rate_range(kind: str, fields: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def spy(sound: Tensor, speed: Tensor, pitch: Tensor, sample_rate: int) -> Tensor:
        seen.append(12 * pitch.log2() if kind == "pitch_shift" else speed)
        return sound

    monkeypatch.setattr("doppel_ray.data.augment.waveform.vocode", spy)
    augmented(kind, torch.zeros(2000, 4), **fields)
    low, high = (
        (0.5, 1.5) if kind == "time_stretch" else (-fields.get("semitones", 15.0), fields.get("semitones", 15.0))
    )
    allowed = 0.01 * (high - low) if kind == "time_stretch" else 0.2  # a fifth of a semitone: transposition has a grid
    assert low - allowed < seen[0].min() < low + allowed
    assert high - allowed < seen[0].max() < high + allowed


# The paper's chain


def response(kind: str, hz: float, **fields: float) -> float:
    """Gain in dB of a filter for a tone."""
    sound = tone(hz)[None]
    middle = augmented(kind, sound, **fields)[:, 4000:-4000]
    return (20 * (level(middle) / level(sound)).log10()).item()


@pytest.mark.parametrize(("kind", "side"), [("high_pass", 1), ("low_pass", -1)])
def test_filter_slope(kind: str, side: int) -> None:
    """A filter is 3 dB down at its cutoff and falls 24 dB per octave."""
    gains = [response(kind, 1000 * 2.0 ** (side * octaves), low=1000, high=1000) for octaves in (0, 2, -1, -2)]
    assert gains[0] == pytest.approx(-3.01, abs=0.05)
    assert gains[1] == pytest.approx(0.0, abs=0.01)
    assert gains[2] == pytest.approx(-24.1, abs=0.2)
    assert gains[3] == pytest.approx(-48.2, abs=0.3)


@pytest.mark.parametrize(("kind", "low", "high"), [("high_pass", 20, 800), ("low_pass", 1200, 8000)])
def test_filter_cutoff_range(kind: str, low: float, high: float) -> None:
    clicks = torch.zeros(500, 8000)
    clicks[:, 4000] = 1.0
    gain = torch.fft.rfft(augmented(kind, clicks)).abs()
    passed = gain > math.sqrt(0.5)
    cutoff = (passed.sum(dim=1) if kind == "low_pass" else passed.float().argmax(dim=1)) * (RATE / 8000)
    mel = torch.log10(1 + cutoff / 700)
    ends = torch.log10(1 + torch.tensor([low, high]) / 700)
    assert (mel.min() - ends[0]).abs() < 0.02
    assert (mel.max() - ends[1]).abs() < 0.02
    assert (mel.mean() - ends.mean()).abs() < 0.02


def test_synthetic_room_decay() -> None:
    """A synthetic room decays by 60 dB in its reverberation time."""
    click = torch.zeros(200, RATE)
    click[:, 0] = 1.0
    rooms = augmented("impulse_response", click, low=0.5, high=0.5)
    torch.testing.assert_close(rooms.square().sum(dim=1), torch.ones(200))
    assert rooms[:, 0].square().mean().item() == pytest.approx(0.5, abs=0.01), "direct sound as strong as the rest"
    decay = 10 * torch.log10(rooms[:, 1:8000].square().mean(dim=0))
    at = [decay[place : place + 400].mean().item() for place in (0, 3800, 7400)]
    assert at[0] - at[1] == pytest.approx(60 * 3800 / 8000, abs=1.0)
    assert at[0] - at[2] == pytest.approx(60 * 7400 / 8000, abs=1.0)


def test_recorded_room_convolution(tmp_path: Path) -> None:
    room = torch.tensor([0.0, 0.6, 0.0, -0.8])
    soundfile.write(tmp_path / "room.wav", room.numpy(), RATE, subtype="FLOAT")
    sound = material("impulse_response", 3)
    expected = 0.6 * sound.roll(1, dims=1) - 0.8 * sound.roll(3, dims=1)
    found = augmented("impulse_response", sound, responses=str(tmp_path))
    torch.testing.assert_close(found[:, 3:], expected[:, 3:], rtol=0, atol=1e-5)
    assert not found[:, 0].abs().gt(1e-5).any()


def test_folder_without_impulse_responses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"augment\.0, impulse_response, cannot be applied: responses is {tmp_path}"):
        check_chain((ImpulseResponse(responses=tmp_path),), RATE)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        check_chain((ImpulseResponse(responses=tmp_path),), RATE)


# Features


@pytest.mark.parametrize(
    ("kind", "time", "frequency"), [("spec_augment", (4, 40), (2, 20)), ("spec_mask", (1, 40), (1, 40))]
)
def test_spectral_mask_counts_and_widths(kind: str, time: tuple[int, int], frequency: tuple[int, int]) -> None:
    features = material(kind, 300)[:, :, :, :].expand(300, 3, 96, 64) + 10.0
    masked = augmented(kind, features, fill=0.0) == 0.0
    assert torch.equal(masked[:, 0], masked[:, 1]), "all channels together"
    frames, bins = masked[:, 0].all(dim=2), masked[:, 0].all(dim=1)
    assert torch.equal(masked[:, 0], frames.unsqueeze(2) | bins.unsqueeze(1))
    for covered, (count, widest) in ((frames, time), (bins, frequency)):
        stretches = (torch.nn.functional.pad(covered, (1, 0)).int().diff(dim=1) == 1).sum(dim=1)
        assert 1 <= stretches.max() <= count
        assert covered.sum(dim=1).max() <= count * widest
        assert covered.sum(dim=1).max() > 0.6 * min(count * widest, covered.shape[1])
        if count == 1:
            assert covered.sum(dim=1).float().mean().item() == pytest.approx(widest / 2, rel=0.15)


def test_spectral_masks_are_filled_with_the_mean() -> None:
    features = material("spec_mask", 20)
    found = augmented("spec_mask", features)
    mean = features.mean(dim=(2, 3), keepdim=True).expand_as(features)
    torch.testing.assert_close(found[found != features], mean[found != features])


# Configuration


def test_chain_from_yaml() -> None:
    links = [{"kind": kind, "p": 0.25} for kind in (*WAVEFORM, *SPECTRAL)]
    experiment = validate_experiment({"augment": links})
    assert [(link.kind, link.p) for link in experiment.augment] == [(link["kind"], link["p"]) for link in links]
    assert read_chain(experiment.plain()["augment"]) == experiment.augment


def test_folders_of_a_chain_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "a.wav", tone(440).numpy(), RATE)
    monkeypatch.chdir(tmp_path)
    links = [
        {"kind": "noise", "source": "mixed", "recordings": "noise"},
        {"kind": "impulse_response", "responses": "noise"},
    ]
    noise, room = validate_experiment({"augment": links}).with_absolute_paths().augment
    assert (noise.recordings, room.responses) == (tmp_path / "noise", tmp_path / "noise")


def refusal(*links: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        validate_experiment({"augment": list(links)}, {"augment": "mine.yaml"})
    return str(refused.value)


def test_chain_errors_name_the_position() -> None:
    message = refusal({"kind": "gain"}, {"kind": "fde"})
    assert f"augment.1: kind is 'fde'; expected one of {', '.join(KINDS)} (from mine.yaml)" in message
    assert "augment.0.p is 2: expected at most 1" in refusal({"kind": "fade", "p": 2})
    assert "augment.0.sise: unknown key" in refusal({"kind": "fade", "sise": 0.5})
    assert "augment.0: kind is None; expected one of gain" in refusal({})
    assert "augment.0: low is 3, above high, which is 1" in refusal({"kind": "noise", "low": 3, "high": 1})


@pytest.mark.parametrize(
    ("links", "rate", "domain", "fault"),
    [
        (["spec_mask", "gain"], RATE, "spectrogram", "augment.1, gain, changes the waveform, so it must come before"),
        (["spec_mask"], RATE, "waveform", "augment.0, spec_mask, masks a spectrogram, and the raw frontend gives none"),
        (["gain", "low_pass"], 8000, "spectrogram", "augment.1, low_pass, cannot be applied: high is 8000 Hz"),
    ],
)
def test_inapplicable_chain_is_refused(links: list[str], rate: int, domain: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_chain(read_chain([{"kind": kind} for kind in links]), rate, domain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_augment_on_gpu(kind: str) -> None:
    batch, indices = material(kind, 8), torch.arange(8)
    augment = chain({"kind": kind, "p": 0.7})
    apply: Callable[[Tensor, Tensor, int], Tensor] = augment.features if kind in SPECTRAL else augment
    found = apply(batch.cuda(), indices.cuda(), 0).cpu()
    torch.testing.assert_close(found, apply(batch, indices, 0), rtol=0, atol=1e-3)


def test_augmentation_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Gain().low = 0.0
