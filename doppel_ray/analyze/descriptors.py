"""What the spectrum of a sound is like, in a few numbers: centroid, bandwidth, roll-off, flatness, flux, ...

Each is taken in Hann windows of 64 ms every 16 ms, and its mean over the windows that are heard (`LOWEST`) is the
sound's. A sound is first brought to a peak of 1, so that none of them depends on its level. Of a window, X is the
spectrum of magnitudes, f the frequency of each bin in Hz:

- centroid, Σ f X / Σ X in Hz; bandwidth, √(Σ (f - centroid)² X / Σ X) in Hz; roll-off, the frequency in Hz below which
  85 % of Σ X lie; flatness, the geometric mean of X² over its mean, 1 where all bins are alike (white noise: e^-γ =
  0.561, since a bin's power is distributed exponentially); zero crossings, the share of samples whose sign is not that
  of the sample before: as librosa defines them (McFee et al., SciPy 2015).
- flux: the distance ‖X/‖X‖ - X'/‖X'‖‖ from the window before, from 0 to √2: Essentia's (Bogdanov et al., ISMIR 2013),
  on spectra of length 1, as Tzanetakis and Cook (2002) have it.
- complexity: how many peaks X has between 100 and 5,000 Hz, where a peak is higher than both its neighbours and than
  0.005 of what a sine of full scale has (-46 dB): Essentia's `SpectralComplexity` after Laurier et al. (2010), without
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
"""Each descriptor, and its unit."""

WINDOW_SECONDS = 0.064
HOP_SECONDS = 0.016

LOWEST = 1e-6
"""A window with less than this share of the power of the sound's loudest (-60 dB) is silent: its spectrum is noise."""

ROLL_OFF = 0.85
PEAK = 0.005
PEAKS_HZ = (100.0, 5000.0)
SMALLEST_POWER = 1e-10
"""What flatness takes for a bin that is empty, as librosa does."""


def describe(sounds: Tensor, sample_rate: int, chunk: int = 16) -> Tensor:
    """The descriptors of sounds, in the order of `DESCRIPTORS`.

    Args:
        sounds: (n, samples) float32; one shorter than a window is followed by zeros.
        sample_rate: in Hz.
        chunk: sounds taken at a time, few enough that their spectra stay in a processor's cache.

    Returns:
        (n, descriptors) float32, finite; of a sound that is silent, zeros.
    """
    return torch.cat([_describe(part, sample_rate) for part in sounds.split(chunk)])


def audible(sounds: Tensor) -> Tensor:
    """Which of the sounds (..., samples) are not silent: (...,) bool."""
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
    heard = (loudness > LOWEST * loudness.amax(dim=-1, keepdim=True)) & sounding
    direction = torch.nn.functional.normalize(magnitude, dim=-1)
    flux = torch.linalg.vector_norm(direction[:, 1:] - direction[:, :-1], dim=-1)

    frames = torch.stack([centroid, spread.sqrt(), roll_off, flatness, crossings, complexity], dim=-1)
    means = _mean(frames, heard)
    both = heard[:, 1:] & heard[:, :-1]
    return torch.cat([means[:, :4], _mean(flux.unsqueeze(-1), both), means[:, 4:]], dim=1)


def _mean(values: Tensor, heard: Tensor) -> Tensor:
    """Mean over the frames that are heard: (n, frames, k), (n, frames) -> (n, k); 0 where there is none."""
    weight = heard.to(values.dtype).unsqueeze(-1)
    return (values * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
