"""Spectral descriptors of sounds with known values."""

import math

import pytest
import torch
from torch import Tensor

from doppel_ray.analyze.descriptors import DESCRIPTORS, audible, describe

RATE = 16000


def described(sound: Tensor, sample_rate: int = RATE) -> dict[str, float]:
    return dict(zip(DESCRIPTORS, describe(sound.unsqueeze(0), sample_rate)[0].tolist(), strict=True))


def sines(*hertz: float, seconds: float = 1.0, sample_rate: int = RATE) -> Tensor:
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return torch.stack([torch.sin(2 * math.pi * f * time) for f in hertz]).sum(dim=0).float()


def noise(seconds: float = 8.0) -> Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("hertz", "sample_rate"), [(440.0, 16000), (3210.0, 16000), (440.0, 44100)])
def test_sine(hertz: float, sample_rate: int) -> None:
    found = described(sines(hertz, sample_rate=sample_rate), sample_rate)
    assert found["centroid"] == pytest.approx(hertz, rel=2e-3)
    assert found["roll-off"] == pytest.approx(hertz, abs=1 / 0.064), "to within a bin"
    # A Hann window's main lobe, and in each bin up to the half band the rounding of float32, relative to the peak.
    length, half = 0.064 * sample_rate, sample_rate / 2
    rounding = torch.finfo(torch.float32).eps * length / 2 * half**2 / 6
    assert found["bandwidth"] < math.sqrt((1 / 0.064) ** 2 + rounding)
    assert found["flatness"] < 1e-6
    assert found["flux"] < 1e-3
    assert found["zero crossings"] == pytest.approx(2 * hertz / sample_rate, rel=1e-2)
    assert found["complexity"] == 1.0


def test_white_noise() -> None:
    found = described(noise())
    assert found["flatness"] == pytest.approx(math.exp(-0.577216), abs=0.01), "a bin's power is exponential"
    assert found["centroid"] == pytest.approx(RATE / 4, rel=0.01)
    assert found["bandwidth"] == pytest.approx(RATE / 2 / math.sqrt(12), rel=0.01)
    assert found["roll-off"] == pytest.approx(0.85 * RATE / 2, rel=0.01)
    assert found["zero crossings"] == pytest.approx(0.5, abs=0.01)


def test_complexity_counts_partials() -> None:
    assert described(sines(50.0, 300.0, 900.0, 2000.0, 6000.0))["complexity"] == 3.0


def test_level_does_not_matter() -> None:
    torch.testing.assert_close(describe(0.01 * noise()[None], RATE), describe(noise()[None], RATE), rtol=1e-3, atol=0.0)


def test_silence_after_a_sound_is_ignored() -> None:
    tone = sines(1000.0, seconds=0.512)
    stopped = torch.cat([tone, torch.zeros(RATE // 2)])
    assert described(stopped)["centroid"] == pytest.approx(1000.0, rel=0.2), "but for where it is cut"


@pytest.mark.parametrize(
    "sound",
    [
        torch.zeros(RATE),
        torch.full((RATE,), 5e-5),
        torch.zeros(10),
        torch.arange(RATE).eq(500).float(),
        torch.ones(RATE),
    ],
)
def test_descriptors_are_finite(sound: Tensor) -> None:
    assert torch.isfinite(describe(sound[None], RATE)).all()
    if not audible(sound):
        assert (describe(sound[None], RATE) == 0.0).all()


def test_batch_does_not_matter() -> None:
    sounds = torch.stack([noise(1.0), sines(440.0), torch.zeros(RATE)]).repeat(7, 1)
    torch.testing.assert_close(describe(sounds, RATE)[7], describe(sounds[7:8], RATE)[0])
