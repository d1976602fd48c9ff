"""Spectral descriptors of sounds: centroid, bandwidth, roll-off, flatness, flux, zero crossings, complexity.

Each is the mean over the audible ones (`LOWEST`) of Hann windows of 64 ms every 16 ms. Sounds are first normalised to a
peak of 1, so that no descriptor depends on level. X is the magnitude spectrum of a window, f the frequency of each bin
in Hz:

- centroid, Σ f X / Σ X in Hz; bandwidth, √(Σ (f - centroid)² X / Σ X) in Hz; roll-off, the frequency in Hz below which
  85 % of Σ X lie; flatness, the geometric mean of X² over its mean, 1 where all bins are alike (white noise: e^-γ =
  0.561, because a bin's power is distributed exponentially); zero crossings, the share of samples whose sign differs
  from the previous sample's: as librosa defines them (McFee et al., SciPy 2015).
- flux: the distance ‖X/‖X‖ - X'/‖X'‖‖ from the previous window, from 0 to √2: Essentia's (Bogdanov et al., ISMIR 2013),
  on spectra of length 1, as in Tzanetakis and Cook (2002).
- complexity: number of peaks of X between 100 and 5,000 Hz; a peak is higher than both neighbours and than 0.005 of a
  full-scale sine (-46 dB): Essentia's `SpectralComplexity` after Laurier et al. (2010), without
  its interpolation between bins.
"""

import torch
from torch import Tensor

from doppel_ray.data.audio_files import SILENCE
from doppel_ray.data.frontends import power

DESCRIPTORS: dict[str, str] = {
    "centroid": "Hz",
    "bandwidth": "Hz",
    "roll-off": "Hz",
    "flatness": "",
    "flux": "",
    "zero crossings": "per sample",
    "complexity": "peaks",
}
"""Descriptor -> unit."""

WINDOW_SECONDS = 0.064
HOP_SECONDS = 0.016

LOWEST = 1e-6
"""A window with less than this share of the loudest window's power (-60 dB) is silent."""

ROLL_OFF = 0.85
PEAK = 0.005
PEAKS_HZ = (100.0, 5000.0)
SMALLEST_POWER = 1e-10
"""Power of an empty bin in flatness, as in librosa."""


def describe(sounds: Tensor, sample_rate: int, chunk: int = 16) -> Tensor:
    """Return the descriptors of sounds, in the order of `DESCRIPTORS`.

    Args:
        sounds: (n, samples) float32; shorter than a window: padded with zeros.
        sample_rate: in Hz.
        chunk: sounds computed at a time; their spectra fit a processor's cache.

    Returns:
        (n, descriptors) float32, finite; zeros for a silent sound.
    """
    return torch.cat([_describe(part, sample_rate) for part in sounds.split(chunk)])


def audible(sounds: Tensor) -> Tensor:
    """Return which of the sounds (..., samples) are not silent: (...,) bool."""
    return sounds.abs().amax(dim=-1) >= SILENCE


def _describe(sounds: Tensor, sample_rate: int) -> Tensor:
    length, hop = round(WINDOW_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    sounding = audible(sounds).unsqueeze(-1)
    sounds = torch.nn.functional.pad(sounds, (0, max(0, length - sounds.shape[-1])))
    sounds = sounds / sounds.abs().amax(dim=-1, keepdim=True).clamp(min=SILENCE)
    framed = sounds.unfold(-1, length, hop)
    window = torch.hann_window(length, device=sounds.device)
    squared = power(torch.fft.rfft(framed * window))  # (n, frames, bins)
    magnitude = squared.sqrt()
    hertz = torch.fft.rfftfreq(length, 1 / sample_rate, device=sounds.device)
    total = magnitude.sum(dim=-1)
    safe = total.clamp(min=torch.finfo(torch.float32).tiny)

    centroid = magnitude @ hertz / safe
    spread = ((hertz - centroid.unsqueeze(-1)).square_() * magnitude).sum(dim=-1) / safe
    below = magnitude.cumsum(dim=-1) < ROLL_OFF * total.unsqueeze(-1)
    roll_off = hertz[below.sum(dim=-1).clamp(max=len(hertz) - 1)]
    floored = squared.clamp(min=SMALLEST_POWER)
    flatness = floored.log().mean(dim=-1).exp() / floored.mean(dim=-1)
    negative = framed < 0.0
    crossings = (negative[..., 1:] != negative[..., :-1]).float().mean(dim=-1)
    sine = magnitude * (2.0 / window.sum())  # a sine of amplitude 1 has a peak of 1
    inner = sine[..., 1:-1]
    peaks = (inner > sine[..., :-2]) & (inner > sine[..., 2:]) & (inner > PEAK)
    within = (hertz >= PEAKS_HZ[0]) & (hertz <= PEAKS_HZ[1])
    complexity = (peaks & within[1:-1]).sum(dim=-1).float()

    loudness = squared.sum(dim=-1)
    audible_frames = (loudness > LOWEST * loudness.amax(dim=-1, keepdim=True)) & sounding
    direction = torch.nn.functional.normalize(magnitude, dim=-1)
    flux = torch.linalg.vector_norm(direction[:, 1:] - direction[:, :-1], dim=-1)

    frames = torch.stack([centroid, spread.sqrt(), roll_off, flatness, crossings, complexity], dim=-1)
    means = _mean(frames, audible_frames)
    both = audible_frames[:, 1:] & audible_frames[:, :-1]
    return torch.cat([means[:, :4], _mean(flux.unsqueeze(-1), both), means[:, 4:]], dim=1)


def _mean(values: Tensor, audible_frames: Tensor) -> Tensor:
    """Return the mean over audible frames: (n, frames, k), (n, frames) -> (n, k); 0 where there is none."""
    weight = audible_frames.to(values.dtype).unsqueeze(-1)
    return (values * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
