"""The frontend is VGGish's log-mel, written out here from its definition in float64."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from doppel_ray.audio import FrontendConfig

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


@pytest.mark.parametrize("level", [1.0, 0.05])
def test_features_are_those_of_the_definition(level: float) -> None:
    random = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    noise = level * random.uniform(-1, 1, RATE)
    chirp = level * np.sin(2 * np.pi * (100 + 3700 * time) * time)
    clicks = np.where(random.random(RATE) < 0.001, level, 0.0)
    sounds = np.stack([noise, chirp, clicks, np.zeros(RATE)])
    found = FrontendConfig().build(RATE)(torch.tensor(sounds, dtype=torch.float32))
    assert found.shape == (4, 1, 96, 64)
    for sound, features in zip(sounds, found[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(features, vggish(sound), atol=1e-3)
        assert np.abs(features - vggish(sound)).mean() < 1e-4


def test_silence_is_the_logarithm_of_the_offset() -> None:
    features = FrontendConfig().build(RATE)(torch.zeros(1, RATE))
    torch.testing.assert_close(features, torch.full((1, 1, 96, 64), math.log(0.01)))


@pytest.mark.parametrize("hz", [220.0, 1000.0, 6000.0])
def test_a_tone_is_loudest_in_a_band_that_holds_it(hz: float) -> None:
    tone = torch.sin(2 * math.pi * hz * torch.arange(RATE) / RATE).unsqueeze(0)
    band = int(FrontendConfig().build(RATE)(tone)[0, 0].mean(dim=0).argmax())
    assert EDGES_HZ[band] < hz < EDGES_HZ[band + 2]


def test_a_sound_gives_whole_examples_where_it_is_long_enough_and_all_its_frames_where_not() -> None:
    frontend = FrontendConfig().build(RATE)
    assert [frontend(torch.zeros(1, n)).shape[2] for n in (400, 4000, RATE, 5 * RATE)] == [1, 23, 96, 480]


def test_a_sound_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="399 samples is shorter than one window of 400"):
        FrontendConfig().build(RATE)(torch.zeros(1, 399))


def test_other_sample_rates_keep_the_frame_rate() -> None:
    assert FrontendConfig().build(44100)(torch.zeros(2, 44100)).shape == (2, 1, 96, 64)


def test_a_sample_rate_that_cannot_hold_the_mel_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_rate is 8000 Hz"):
        FrontendConfig().build(8000)
