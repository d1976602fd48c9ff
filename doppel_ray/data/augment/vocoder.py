"""A phase vocoder for batches in which every sound has its own rate."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from doppel_ray.data.frontends import power

FRAME_SECONDS = 0.064
OVERLAP = 4
CHUNK = 16
"""Sounds at a time on a CPU: their spectra, eight times as large as they are, then stay near its cache."""
SILENCE = 1e-30
"""Power of a bin below which it has no phase: far below any sound, far above what a float32 loses."""


def vocode(sound: Tensor, speed: Tensor, pitch: Tensor, sample_rate: int) -> Tensor:
    """Change the speed of sounds and their pitch, one without the other.

    A frame of output is a frame of input taken `speed` times as far along. From frame to frame the phase of each bin
    advances as it does in the input over one hop, which a second transform of the input, one hop later, gives exactly
    (Puckette, 1995). Pitch is resampling: an input frame `pitch` times as long is transformed, and its spectrum, cut or
    filled up with zeros, is transformed back at the output's length. So nothing aliases.

    torchaudio's vocoder takes one rate a call, and its pitch shift resamples with a bank of filters that grows with the
    terms of the ratio: two seconds a sound for 5 semitones at 16 kHz. Here only the transforms of the input run row by
    row, as their lengths differ; all else runs on the batch.

    Args:
        sound: (batch, samples) float32.
        speed: (batch,) above 0; 2 plays twice as fast. Held to a grid of 1/256 at 16 kHz.
        pitch: (batch,) above 0; 2 is an octave up. Held to a grid of 1/1024 at 16 kHz, 1.7 cents.
        sample_rate: in Hz.

    Returns:
        (batch, samples): what is over is cut off the end, what is missing is zero.
    """
    if sound.device.type == "cpu" and len(sound) > CHUNK:
        parts = zip(sound.split(CHUNK), speed.split(CHUNK), pitch.split(CHUNK), strict=True)
        return torch.cat([vocode(*part, sample_rate) for part in parts])
    samples = sound.shape[1]
    length = _length(sample_rate)
    hop = length // OVERLAP
    frames = 2 + samples // hop
    spectrum = torch.zeros(len(sound), frames, length // 2 + 1, dtype=torch.complex64, device=sound.device)
    advance = torch.zeros_like(spectrum)
    strides, sizes = ((rate * scale).round().long().tolist() for rate, scale in ((speed, hop), (pitch, length)))
    for row, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        bins = min(length, size) // 2  # Nyquist's bin is left out: it has no phase
        now, later = _analyse(sound[row], size, stride, bins, frames)
        spectrum[row, :, :bins] = now
        torch.sgn(later * now.conj(), out=advance[row, :, :bins])
    _run_phases(spectrum, advance)
    window = torch.hann_window(length, device=sound.device)
    grains = torch.fft.irfft(spectrum, n=length, norm="forward") * window
    weights = (window * window).expand(1, frames, length)
    total = _overlap_add(grains, hop) / _overlap_add(weights, hop).clamp(min=1e-3)
    return total[:, length // 2 : length // 2 + samples]


def fast(pitch: Tensor, sample_rate: int) -> Tensor:
    """Return the nearest ratios, (batch,), for which `vocode` is fast: at most 22 cents away, 5 on average.

    A transform whose length has a large prime factor takes five times as long.
    """
    length = _length(sample_rate)
    ratios = torch.tensor(_smooth_sizes(length // 4, length * 4), device=pitch.device) / length
    return ratios[torch.bucketize(pitch, (ratios[1:] + ratios[:-1]) / 2)]


@functools.cache
def _smooth_sizes(low: int, high: int) -> list[int]:
    """Return the numbers from `low` to `high` without a prime factor above 13."""
    return [n for n in range(low, high + 1) if pow(math.prod((2, 3, 5, 7, 11, 13)), n.bit_length(), n) == 0]


def _length(sample_rate: int) -> int:
    """Return the samples of an output frame."""
    return 1 << round(FRAME_SECONDS * sample_rate).bit_length() - 1


def _analyse(sound: Tensor, size: int, stride: int, bins: int, frames: int) -> tuple[Tensor, Tensor]:
    """Return one sound's spectra, and those of one hop later, both (frames, bins) complex.

    Args:
        sound: (samples,).
        size: samples of a frame; a hop is a fourth of it.
        stride: samples between frames.
        bins: how many, from DC.
        frames: how many, the first one centred on the first sample.
    """
    lag = size // OVERLAP
    missing = size + lag + stride * (frames - 1) - (size // 2 + len(sound))
    padded = F.pad(sound, (size // 2, max(missing, 0)))
    window = torch.hann_window(size, device=sound.device) / size
    now, later = (
        torch.fft.rfft(padded[start:].unfold(0, size, stride)[:frames] * window)[:, :bins] for start in (0, lag)
    )
    if size % OVERLAP:  # a hop is a fraction of a sample longer then: rotate each bin by the rest
        turns = torch.arange(bins, device=sound.device) * ((size / OVERLAP - lag) / size)
        later = later * torch.exp(2j * torch.pi * turns)
    return now, later


def _run_phases(spectrum: Tensor, advance: Tensor) -> None:
    """Replace the phases of the spectra (batch, frames, bins), in place, by ones that continue from frame to frame.

    Each bin first adds its neighbours' phases, weighted by their amplitude (of opposite sign, as the window's
    middle is the frame's): so the bins of one partial keep together, led by the loudest (Puckette, 1995).
    """
    for k in range(1, spectrum.shape[1]):
        locked = spectrum[:, k - 1].clone()
        locked[:, 1:] -= spectrum[:, k - 1, :-1]
        locked[:, :-1] -= spectrum[:, k - 1, 1:]
        running = locked * advance[:, k - 1]
        size = power(running)
        scale = torch.sqrt(power(spectrum[:, k]) / size).unsqueeze(-1)
        scaled = torch.view_as_complex(torch.view_as_real(running) * scale)
        # Silence has no phase to continue, so an onset begins with its own.
        spectrum[:, k] = torch.where(size > SILENCE, scaled, spectrum[:, k])


def _overlap_add(grains: Tensor, hop: int) -> Tensor:
    """Sum frames, each a hop after the one before.

    Args:
        grains: (batch, frames, OVERLAP * hop).
        hop: in samples.

    Returns:
        (batch, (frames + OVERLAP - 1) * hop).
    """
    batch, frames, _ = grains.shape
    total = grains.new_zeros(batch, frames + OVERLAP - 1, hop)
    for k, part in enumerate(grains.unflatten(2, (OVERLAP, hop)).unbind(2)):
        total[:, k : k + frames] += part
    return total.flatten(1)
