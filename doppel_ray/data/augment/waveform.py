"""Augmentations of waveforms: CLAR's six families, and the chain of Audio Doppelgängers.

CLAR (Al-Tahan and Mohsenzadeh, AISTATS 2021) is cited by what its code does (utils.py of
github.com/haideraltahan/CLAR), which applies each augmentation with probability 0.5, as Audio Doppelgängers (Cherep and
Singh, ICLR 2025) does.
"""

import functools
import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.data import audio_files, audio_folders
from doppel_ray.data.augment.augmentation import Augmentation, Draws, ascending
from doppel_ray.data.augment.vocoder import fast, vocode


class Gain(Augmentation):
    """Multiply by a random level, uniform in dB."""

    kind: Literal["gain"] = "gain"
    p: float = Field(default=1.0, ge=0.0, le=1.0)
    """Probability that it is applied to a view."""
    low: float = -12.0
    """Lowest gain in dB."""
    high: float = 12.0
    """Highest gain in dB; peaks above 1 are kept, as features have no clipping."""

    @model_validator(mode="after")
    def _ordered(self) -> "Gain":
        ascending(self.low, self.high)
        return self

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        return batch * 10.0 ** (draws.between(self.low, self.high) / 20.0)


FadeShape = Literal["linear", "logarithmic", "exponential", "quarter_sine", "half_sine"]


class Fade(Augmentation):
    """CLAR: fade in and out, each over a random part of the clip, both of one random shape."""

    kind: Literal["fade"] = "fade"
    size: float = Field(default=0.5, ge=0.0, le=1.0)
    """Longest fade as a share of the clip; the lengths of both are uniform from 0."""
    shapes: tuple[FadeShape, ...] = Field(
        default=("linear", "exponential", "logarithmic", "quarter_sine", "half_sine"), min_length=1
    )
    """Shapes to draw from."""

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        samples = batch.shape[1]
        choice, *lengths = draws.uniform(3).unbind(1)
        fade_in, fade_out = (torch.floor(length * self.size * samples).unsqueeze(1) for length in lengths)
        place = torch.arange(samples, device=batch.device, dtype=torch.float32)
        rising = (place / (fade_in - 1).clamp(min=1.0)).clamp(max=1.0)
        falling = ((samples - 1 - place) / (fade_out - 1).clamp(min=1.0)).clamp(max=1.0)
        out = torch.empty_like(batch)
        choice = torch.floor(choice * len(self.shapes))
        for k, shape in enumerate(self.shapes):  # each shape on its own rows: transcendental functions are slow
            rows = (choice == k).nonzero().squeeze(1)
            out[rows] = batch[rows] * _faded(rising[rows], shape) * _faded(falling[rows], shape)
        return out


def _faded(progress: Tensor, shape: FadeShape) -> Tensor:
    """Return the level of a fade that is at `progress`, from 0 (silent) to 1 (over)."""
    match shape:
        case "linear":
            return progress
        case "exponential":
            return progress * torch.exp2(progress - 1)
        case "logarithmic":
            return (1 + torch.log10(0.1 + progress)).clamp(0.0, 1.0)
        case "quarter_sine":
            return torch.sin(progress * (math.pi / 2))
        case "half_sine":
            return 0.5 - 0.5 * torch.cos(progress * math.pi)


class TimeMask(Augmentation):
    """CLAR: replace a stretch of the sound by faint noise or by a constant.

    CLAR's code masks an eighth of the clip, 0.125 s where it lasts a second, and flips a second coin before it does,
    which comes to p = 0.25.
    """

    kind: Literal["time_mask"] = "time_mask"
    seconds: float = Field(default=0.125, gt=0.0)
    """Length of the stretch, at most the clip's."""
    fill: Literal["noise", "constant"] = "noise"
    """What replaces it: Gaussian noise or a constant."""
    level: float = 0.01
    """Standard deviation of the noise, or the constant."""

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        samples = batch.shape[1]
        length = min(round(self.seconds * draws.sample_rate), samples)
        start = torch.floor(draws.uniform(1) * (samples - length + 1)).long()
        fill = draws.noise(length) * self.level if self.fill == "noise" else batch.new_full((1, 1), self.level)
        place = start + torch.arange(length, device=batch.device)
        return batch.scatter(1, place, fill.expand(len(batch), length))


def _roll(batch: Tensor, shift: Tensor) -> Tensor:
    """Roll rows to the right by `shift` samples, (rows, 1) int64, around the end of the clip."""
    samples = batch.shape[1]
    place = torch.arange(samples, device=batch.device) - shift % samples
    return batch.gather(1, torch.where(place < 0, place + samples, place))


class TimeShift(Augmentation):
    """CLAR: shift in time, around the end of the clip."""

    kind: Literal["time_shift"] = "time_shift"
    seconds: float = Field(default=0.5, gt=0.0)
    """Furthest shift, earlier or later."""

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        return _roll(batch, torch.round(draws.between(-self.seconds, self.seconds) * draws.sample_rate).long())


class Shift(Augmentation):
    """Audio Doppelgängers: shift in time, around the end of the clip."""

    kind: Literal["shift"] = "shift"
    share: float = Field(default=0.25, gt=0.0, le=1.0)
    """Furthest shift, earlier or later, as a share of the clip."""

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        return _roll(batch, torch.round(draws.between(-self.share, self.share) * batch.shape[1]).long())


class PitchShift(Augmentation):
    """CLAR (15 semitones) and Audio Doppelgängers (2): transpose, keeping the length."""

    kind: Literal["pitch_shift"] = "pitch_shift"
    semitones: float = Field(default=15.0, gt=0.0, le=24.0)
    """Furthest transposition, down or up; uniform between the two, but for a fine grid (`vocoder.fast`)."""

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        ratio = torch.exp2(draws.between(-self.semitones, self.semitones).squeeze(1) / 12)
        return vocode(batch, torch.ones_like(ratio), fast(ratio, draws.sample_rate), draws.sample_rate)


class TimeStretch(Augmentation):
    """CLAR: play faster or slower, keeping the pitch; what is over is cut off, what is missing is silence.

    CLAR's code resamples the stretched sound to the clip's length, which undoes the stretch and leaves a
    transposition. This does what its paper says.
    """

    kind: Literal["time_stretch"] = "time_stretch"
    low: float = Field(default=0.5, ge=0.25, le=4.0)
    """Slowest rate; 0.5 takes twice as long."""
    high: float = Field(default=1.5, ge=0.25, le=4.0)
    """Fastest rate."""

    @model_validator(mode="after")
    def _ordered(self) -> "TimeStretch":
        ascending(self.low, self.high)
        return self

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        rate = draws.between(self.low, self.high).squeeze(1)
        return vocode(batch, rate, torch.ones_like(rate), draws.sample_rate)


class _Filter(Augmentation):
    """A Butterworth filter's magnitude, without its phase, applied to the spectrum of the whole clip.

    The cutoff is uniform on the mel scale, as torch-audiomentations draws it. torchaudio's biquads take one cutoff a
    call; its lfilter, which takes one a row, is a loop over samples, and two Fourier transforms outrun it.
    """

    low: float = Field(gt=0.0)
    high: float = Field(gt=0.0)
    order: int = Field(default=4, ge=1, le=16)
    """Steepness: 6 dB per octave for each."""

    @model_validator(mode="after")
    def _ordered(self) -> "_Filter":
        ascending(self.low, self.high)
        return self

    def check(self, sample_rate: int) -> None:
        if self.high > sample_rate / 2:
            raise ValueError(f"high is {self.high:g} Hz; sound at {sample_rate} Hz reaches {sample_rate / 2:g}")

    def _distance(self, hz: Tensor, cutoff: Tensor) -> Tensor:
        """Return how far a frequency lies beyond the cutoff, as a ratio."""
        raise NotImplementedError

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        mel = draws.between(*(2595.0 * math.log10(1.0 + hz / 700.0) for hz in (self.low, self.high)))
        cutoff = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        samples = batch.shape[1]
        size = _fast_length(samples + draws.sample_rate // 4)  # the ringing of 20 Hz is over before it comes round
        hz = torch.arange(size // 2 + 1, device=batch.device) * (draws.sample_rate / size)
        gain = torch.rsqrt(1.0 + self._distance(hz, cutoff) ** (2 * self.order))
        spectrum = torch.fft.rfft(batch, n=size)
        torch.view_as_real(spectrum).mul_(gain.unsqueeze(2))
        return torch.fft.irfft(spectrum, n=size)[:, :samples]


class HighPass(_Filter):
    """Audio Doppelgängers: a high-pass filter."""

    kind: Literal["high_pass"] = "high_pass"
    low: float = Field(default=20.0, gt=0.0)
    """Lowest cutoff in Hz."""
    high: float = Field(default=800.0, gt=0.0)
    """Highest cutoff in Hz."""

    def _distance(self, hz: Tensor, cutoff: Tensor) -> Tensor:
        return cutoff / hz


class LowPass(_Filter):
    """Audio Doppelgängers: a low-pass filter."""

    kind: Literal["low_pass"] = "low_pass"
    low: float = Field(default=1200.0, gt=0.0)
    """Lowest cutoff in Hz."""
    high: float = Field(default=8000.0, gt=0.0)
    """Highest cutoff in Hz."""

    def _distance(self, hz: Tensor, cutoff: Tensor) -> Tensor:
        return hz / cutoff


class ImpulseResponse(Augmentation):
    """Audio Doppelgängers: the sound of a room, by convolution with its impulse response.

    With a folder, one of its recorded responses is drawn. Without one, as none is shipped, a response is synthesised: a
    direct sound, then Gaussian noise that decays exponentially over a random reverberation time, as that of a diffuse
    room does (Moorer, 1979). Either is scaled to unit energy, so that levels stay about the same, and the tail
    beyond the clip is cut off.
    """

    kind: Literal["impulse_response"] = "impulse_response"
    responses: Path | None = None
    """Folder of recorded impulse responses, searched to any depth; null: synthesise them."""
    low: float = Field(default=0.1, gt=0.0, le=10.0)
    """Synthesised: shortest reverberation time (to fall by 60 dB) in seconds."""
    high: float = Field(default=1.0, gt=0.0, le=10.0)
    """Synthesised: longest reverberation time in seconds."""
    direct: float = 0.0
    """Synthesised: energy of the direct sound over that of the reverberation in dB."""

    @model_validator(mode="after")
    def _ordered(self) -> "ImpulseResponse":
        ascending(self.low, self.high)
        return self

    def check(self, sample_rate: int) -> None:
        if self.responses is not None:
            _read_responses(self.responses, sample_rate)

    def apply(self, batch: Tensor, draws: Draws) -> Tensor:
        samples = batch.shape[1]
        choice = draws.uniform(1)
        if self.responses is None:
            response = self._synthesise(choice, samples, draws)
        else:
            recorded = _read_responses(self.responses, draws.sample_rate)
            row = torch.floor(choice.squeeze(1) * len(recorded)).long().cpu()
            response = recorded[row, :samples].to(batch.device)
        response = response * torch.rsqrt(response.square().sum(dim=1, keepdim=True).clamp(min=1e-20))
        size = _fast_length(samples + response.shape[1] - 1)
        spectrum = torch.fft.rfft(batch, n=size) * torch.fft.rfft(response, n=size)
        return torch.fft.irfft(spectrum, n=size)[:, :samples]

    def _synthesise(self, choice: Tensor, samples: int, draws: Draws) -> Tensor:
        length = min(round(self.high * draws.sample_rate), samples)
        reverberation = (self.low + (self.high - self.low) * choice) * draws.sample_rate
        time = torch.arange(length, device=choice.device)
        response = draws.noise(length) * torch.exp(-3.0 * math.log(10.0) * time / reverberation)
        response[:, 0] = 0.0
        energy = response.square().sum(dim=1)
        response[:, 0] = torch.sqrt(energy * 10.0 ** (self.direct / 10.0)).clamp(min=1e-6)
        return response


@functools.lru_cache(maxsize=4)
def _read_responses(folder: Path, sample_rate: int) -> Tensor:
    """Read every impulse response in a folder, (n, samples) float32 with zeros at the end, once a process.

    Raises:
        ValueError: there is none, or one is silent or cannot be read.
    """
    paths = audio_folders.find(folder).paths
    if not paths:
        raise ValueError(f"responses is {folder}; expected a folder with audio files in or below it")
    sounds = [audio_files.read(path, sample_rate) for path in paths]
    for path, sound in zip(paths, sounds, strict=True):
        if not sound.any():
            raise ValueError(f"{path}: a silent impulse response")
    return torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)


def _fast_length(samples: int) -> int:
    """Return a length whose Fourier transform is fast: at least `samples`, and at most a sixteenth longer."""
    step = 1 << max(samples.bit_length() - 5, 1)
    return -(-samples // step) * step
