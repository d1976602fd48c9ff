"""Read recordings, whole or in parts."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from doppel_ray.data.audio_decoding import (
    BLOCK,
    SILENCE,
    Frames,
    UnreadableAudioError,
    checked_length,
    open_file,
    open_frames,
)

VERSION = 3
"""Version of what `read` returns: raise it with every change that alters a sample, so that caches decode again."""

_LARGEST_FILTER = 4_000_000
"""Weights of the largest resampling filter: 16 MB."""

_LARGEST_RATIO = 1000
"""Largest denominator of the ratio by which rates are converted: exact between all usual rates, and within 1e-4 for any
other, whose exact ratio (44,101 : 16,000, say) would need a filter of gigabytes."""

_ZERO_CROSSINGS, _ROLLOFF, _BETA = 96, 0.971, 9.0
"""The resampling filter, a sinc under a Kaiser window: its zero crossings on either side, its cutoff as a share of the
lower Nyquist frequency, and the window's shape. From 44.1 to 16 kHz it is flat to 0.1 dB up to 7.6 kHz, and what lies
above 8.05 kHz aliases at -90 dB or less. torchaudio's defaults lose 1.8 dB at 7 kHz and let 9 kHz alias at -17 dB."""


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

    def __init__(self, frames: Frames, sample_rate: int) -> None:
        self.frames = frames
        self.old, self.step = _ratio(frames.samplerate, sample_rate)
        self.samples = math.ceil(frames.count * self.step / self.old)

    def read(self, start: int, count: int) -> Tensor:
        # The filter reads a margin on both sides, so that a part equals the same part of the whole. It begins at a
        # multiple of `old` frames, which falls on a sample of the new rate.
        margin = math.ceil(_filter_width(self.old, self.step) / self.old) * self.old
        first = max(0, start // self.step * self.old - margin)
        last = min(self.frames.count, math.ceil((start + count) * self.old / self.step) + margin)
        sound = _resample(self.frames.read(first, last), self.old, self.step)
        begin = start - first // self.old * self.step
        return sound[begin : begin + count]


@contextmanager
def opened(path: Path, sample_rate: int) -> Iterator[Clip]:
    """Open a file to read parts from, mono (the mean of its channels) at `sample_rate` Hz.

    Parts are decoded alone where the format seeks exactly (WAV, FLAC, AIFF, ...), and then differ from the same part of
    the whole by rounding alone. Of other formats, parts in ascending order are read in one pass. Memory does not grow
    with the length of the file.

    Raises:
        UnreadableAudioError: the file cannot be opened or holds no sound; or, as it is read, it is cut short, damaged,
            holds samples that are not finite, or its channels cancel each other.
    """
    with closing(open_frames(path)) as frames:
        yield _OpenFile(frames, sample_rate)


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
    file, _ = open_file(path)
    with file:
        return checked_length(path, file.frames) / file.samplerate


def scan(paths: Iterable[Path], decode: bool = False, threads: int = 8) -> dict[Path, str]:
    """Return the files that cannot be used, each with the reason, in the order given.

    Args:
        paths: the files.
        decode: read all of each file, which also finds damage and silence; otherwise only its header and its last frame
            are read.
        threads: files read at once; more than there are cores helps where storage is slow to answer.
    """

    def fault(path: Path) -> str | None:
        try:
            if decode:
                return None if _is_audible(path) else "silent"
            _check_end(path)
        except UnreadableAudioError as error:
            return error.reason
        return None

    paths = list(paths)
    with ThreadPoolExecutor(threads) as pool:
        return {path: reason for path, reason in zip(paths, pool.map(fault, paths), strict=True) if reason}


def _is_audible(path: Path) -> bool:
    """Decode all of a file, a part at a time, and return whether it reaches a level above silence."""
    with closing(open_frames(path)) as frames:
        starts = range(0, frames.count, BLOCK)
        return max(float(frames.read(at, min(at + BLOCK, frames.count)).abs().amax()) for at in starts) >= SILENCE


def _check_end(path: Path) -> None:
    """Check a file's header and, where a seek finds it, its last frame."""
    file, _ = open_file(path)
    with file:
        frames = checked_length(path, file.frames)
        if file.seekable():
            try:
                file.seek(frames - 1)
                whole = len(file.read(1)) == 1
            except Exception:  # of a decoder
                whole = False
            if not whole:
                raise UnreadableAudioError(path, f"cut short: the last of {frames} promised samples is not there")


def _ratio(rate: int, sample_rate: int) -> tuple[int, int]:
    """Return the ratio of two rates, whose resampling filter has at most about `_LARGEST_FILTER` weights."""
    largest = min(_LARGEST_RATIO, math.isqrt(max(1, _LARGEST_FILTER * sample_rate // rate)))
    ratio = Fraction(rate, sample_rate).limit_denominator(largest)
    return ratio.numerator, ratio.denominator


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
