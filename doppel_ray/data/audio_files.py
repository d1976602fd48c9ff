"""Read recordings, whole or in parts."""

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64")
)
"""Suffixes of audio files in a folder; libsndfile reads all of these."""

VERSION = 2
"""Version of what `read` returns: raise it with every change that alters a sample, so that caches decode again."""

SILENCE = 1e-4
"""Peak below which a sound counts as silent, -80 dB of full scale."""

_EXACT_SEEK = frozenset(("WAV", "WAVEX", "FLAC", "AIFF", "AU", "CAF", "W64", "RF64"))
"""Formats in which a seek lands on the very sample. The others are decoded from their start."""

_LARGEST_RATIO = 1000
"""Largest denominator of the ratio by which rates are converted: exact between all usual rates, and within 1e-4 for any
other, whose exact ratio (44,101 : 16,000, say) would need a filter of gigabytes."""

_ZERO_CROSSINGS, _ROLLOFF, _BETA = 96, 0.971, 9.0
"""The resampling filter, a sinc under a Kaiser window: its zero crossings on either side, its cutoff as a share of the
lower Nyquist frequency, and the window's shape. From 44.1 to 16 kHz it is flat to 0.1 dB up to 7.6 kHz, and what lies
above 8.05 kHz aliases at -90 dB or less. torchaudio's defaults lose 1.8 dB at 7 kHz and let 9 kHz alias at -17 dB."""


class UnreadableAudioError(ValueError):
    """A file that is missing, empty or not audio. The message names it; `reason` is the rest of the message."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)  # so that it can be pickled


class Clip(Protocol):
    """Mono sound that can be read in parts, at the rate for which it was opened.

    Attributes:
        samples: its length.
        step: parts begin at multiples of this many samples, where both rates have a sample at the same time.
    """

    samples: int
    step: int

    def read(self, start: int, count: int) -> Tensor:
        """Return `count` samples from `start` on, fewer at the end of the clip, float32."""


class Decoded:
    """A clip held in memory."""

    def __init__(self, sound: Tensor, step: int) -> None:
        self.sound, self.step, self.samples = sound, step, len(sound)

    def read(self, start: int, count: int) -> Tensor:
        return self.sound[start : start + count]


class _OpenFile:
    """A clip in a file; only the parts that are read are decoded, where the format allows it."""

    def __init__(self, path: Path, file: Any, sample_rate: int) -> None:
        self.path, self.file = path, file
        ratio = Fraction(file.samplerate, sample_rate).limit_denominator(_LARGEST_RATIO)
        self.old, self.step = ratio.numerator, ratio.denominator
        if self.old == 0:
            raise UnreadableAudioError(path, f"its sample rate is {file.samplerate} Hz, which is not one of audio")
        self.frames = _checked_length(path, file.frames)
        self.data: Tensor | None = None
        if file.format not in _EXACT_SEEK:
            self.data = _mono(file.read(dtype="float32", always_2d=True))
            self.frames = _checked_length(path, len(self.data))
        self.samples = math.ceil(self.frames * self.step / self.old)

    def read(self, start: int, count: int) -> Tensor:
        # The filter reads a margin on both sides, so that a part equals the same part of the whole. It begins at a
        # multiple of `old` frames, which falls on a sample of the new rate.
        margin = math.ceil(_filter_width(self.old, self.step) / self.old) * self.old
        first = max(0, start // self.step * self.old - margin)
        last = min(self.frames, math.ceil((start + count) * self.old / self.step) + margin)
        sound = _resample(self._frames(first, last), self.old, self.step)
        begin = start - first // self.old * self.step
        return sound[begin : begin + count]

    def _frames(self, first: int, last: int) -> Tensor:
        if self.data is not None:
            sound = self.data[first:last]
        else:
            with _naming(self.path, "damaged or cut short: "):
                self.file.seek(first)
                sound = _mono(self.file.read(last - first, dtype="float32", always_2d=True))
        if len(sound) < last - first:
            there = first + len(sound)
            raise UnreadableAudioError(self.path, f"cut short: {there} of the {self.frames} samples it promises")
        if not torch.isfinite(sound).all():
            raise UnreadableAudioError(self.path, "holds samples that are NaN or infinite")
        return sound


@contextmanager
def opened(path: Path, sample_rate: int) -> Iterator[Clip]:
    """Open a file to read parts from, mono (the mean of its channels) at `sample_rate` Hz.

    Parts are decoded alone where the format seeks exactly (WAV, FLAC, AIFF, ...), and then differ from the same part of
    the whole by rounding alone.

    Raises:
        UnreadableAudioError: the file cannot be opened or holds no sound; or, as it is read, it is cut short, damaged,
            or holds samples that are not finite.
    """
    import soundfile

    with _naming(path):
        file = soundfile.SoundFile(path)
    with file:
        with _naming(path):
            clip = _OpenFile(path, file, sample_rate)
        yield clip


def read(path: Path, sample_rate: int) -> Tensor:
    """Return a file as mono sound at `sample_rate` Hz: (samples,) float32.

    Raises:
        UnreadableAudioError: the file cannot be decoded, or holds no sound.
    """
    with opened(path, sample_rate) as clip:
        return clip.read(0, clip.samples)


def duration(path: Path) -> float:
    """Return the duration of a file in seconds, from its header alone.

    Raises:
        UnreadableAudioError: the header cannot be read, or says that there is no sound.
    """
    import soundfile

    with _naming(path):
        info = soundfile.info(path)
    return _checked_length(path, info.frames) / info.samplerate


def below(folder: Path) -> list[Path]:
    """List the audio files in or below a folder, sorted by path, without hidden files and linked folders."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
    )


def scan(paths: Iterable[Path], decode: bool = False, threads: int = 8) -> dict[Path, str]:
    """Return the files that cannot be used, each with the reason, in the order given.

    Args:
        paths: the files.
        decode: read all of each file, which also finds damage and silence; otherwise only headers are read.
        threads: files read at once; more than there are cores helps where storage is slow to answer.
    """

    def fault(path: Path) -> str | None:
        try:
            if not decode:
                duration(path)
            elif read(path, sample_rate=16000).abs().amax() < SILENCE:
                return "silent"
        except UnreadableAudioError as error:
            return error.reason
        return None

    paths = list(paths)
    with ThreadPoolExecutor(threads) as pool:
        return {path: reason for path, reason in zip(paths, pool.map(fault, paths), strict=True) if reason}


def _mono(data: Any) -> Tensor:
    sound = torch.from_numpy(data)
    return sound.mean(dim=1) if sound.shape[1] > 1 else sound.squeeze(1)


def _resample(sound: Tensor, old: int, new: int) -> Tensor:
    return sound if old == new else _resampler(old, new)(sound)


@lru_cache(maxsize=16)
def _resampler(old: int, new: int) -> Any:
    """Return torchaudio's windowed-sinc filter, cached: making it takes longer than filtering a second of sound."""
    from torchaudio.transforms import Resample

    return Resample(old, new, "sinc_interp_kaiser", _ZERO_CROSSINGS, _ROLLOFF, _BETA)


def _filter_width(old: int, new: int) -> int:
    """Return the frames on either side that the filter reads."""
    return 0 if old == new else math.ceil(_ZERO_CROSSINGS * old / (min(old, new) * _ROLLOFF))


def _checked_length(path: Path, frames: int) -> int:
    if frames == 0:
        raise UnreadableAudioError(path, "zero-length audio")
    if frames >= 1 << 62:  # libsndfile's "unknown", for FLAC written to a pipe
        raise UnreadableAudioError(path, "its header does not say how long it is; write the file again")
    return frames


@contextmanager
def _naming(path: Path, what: str = "") -> Iterator[None]:
    """Raise libsndfile's errors as `UnreadableAudioError` with the file's name."""
    import soundfile

    try:
        yield
    except (OSError, soundfile.SoundFileError) as error:
        raise UnreadableAudioError(path, what + _reason(path, error)) from None


def _reason(path: Path, error: Exception) -> str:
    if not path.is_file():
        return "no such file"
    if path.stat().st_size == 0:
        return "an empty file"
    return str(error).rpartition(": ")[2].rstrip(".") or type(error).__name__
