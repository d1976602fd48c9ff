"""Decode the frames of audio files, in blocks of a bounded size."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from doppel_ray.data import audio_headers
from doppel_ray.data.audio_folders import printable

SILENCE = 1e-4
"""Peak below which a sound counts as silent, -80 dB of full scale."""

_EXACT_SEEK = frozenset(("WAV", "WAVEX", "FLAC", "AIFF", "AU", "CAF", "W64", "RF64"))
"""Formats in which a seek lands on the very sample. The others are decoded from their start."""

_RATES = (1000, 768000)
"""Lowest and highest sample rate in Hz of a file."""

_CHANNELS = 64
"""Largest number of channels of a file."""

BLOCK = 1 << 20
"""Samples that are decoded at once, of all channels together."""

_LONG = 1 << 22
"""Frames of a long file: 95 s at 44.1 kHz. A shorter one that has to be decoded from its start is held in memory."""

_UNKNOWN = 1 << 62
"""A length that libsndfile gives for "unknown"."""

_CANCELLED = 1e-3
"""Energy of the channels' mean as a share of that of the channels, -30 dB, below which they cancel each other. It is
1/64 of 64 independent channels."""


class UnreadableAudioError(ValueError):
    """A file that is missing, empty or not audio. The message names it; `reason` is the rest of the message."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)  # so that it can be pickled


class Frames:
    """The frames of a file as mono sound.

    Attributes:
        count: of the file.
        samplerate: in Hz.

    Args:
        path: of the file.
        file: open, at its start.
        exact: the file's own count of frames is no estimate.
    """

    def __init__(self, path: Path, file: Any, exact: bool) -> None:
        self.path, self.file, self.exact = path, file, exact
        self.count, self.samplerate = file.frames, file.samplerate
        self.balance = _Balance()

    def read(self, first: int, last: int) -> Tensor:
        """Return frames first to last - 1, (last - first,) float32."""
        sound = self._read(first, last)
        if len(sound) < last - first:
            raise self._cut_short(first + len(sound))
        if not torch.isfinite(sound).all():
            raise UnreadableAudioError(self.path, "holds samples that are NaN or infinite")
        if self.balance.seen >= self.count and self.balance.cancels():
            raise UnreadableAudioError(self.path, "its channels cancel: their mean is silent; invert one or keep one")
        return sound

    def _cut_short(self, there: int) -> UnreadableAudioError:
        return UnreadableAudioError(self.path, f"cut short: {there} of the {self.count} samples it promises")

    def close(self) -> None:
        self.file.close()

    def _read(self, first: int, last: int) -> Tensor:
        raise NotImplementedError

    def _decode(self, at: int, count: int) -> Tensor:
        """Return up to `count` frames from the position of the file, which is `at`."""
        parts = []
        with decoding(self.path, "damaged or cut short: "):
            for block in _blocks(self.file, count):
                parts.append(self.balance.mono(at, block))
                at += len(block)
        return torch.cat(parts) if len(parts) != 1 else parts[0]


class Seekable(Frames):
    """A file of which parts are decoded alone."""

    def __init__(self, path: Path, file: Any, exact: bool) -> None:
        super().__init__(path, file, exact)
        if self.count > _LONG:  # a wrong header must not promise hours that windows are then made for
            self.read(self.count - 1, self.count)

    def _read(self, first: int, last: int) -> Tensor:
        with decoding(self.path, "damaged or cut short: "):
            self.file.seek(first)
        return self._decode(first, last - first)


class Forward(Frames):
    """A file that is decoded from its start. It holds the part read last, or all of a short file."""

    def __init__(self, path: Path, file: Any, exact: bool) -> None:
        super().__init__(path, file, exact)
        self.begin, self.held = 0, self._decode(0, _LONG)
        if len(self.held) < _LONG:
            if self.exact and len(self.held) < self.count:
                raise self._cut_short(len(self.held))
            self.count = len(self.held)
        elif not self.exact:
            self.count = _LONG
            with decoding(path, "damaged or cut short: "):
                self.count += sum(len(block) for block in _blocks(self.file, _UNKNOWN))
            self._rewind()

    def _read(self, first: int, last: int) -> Tensor:
        if self.count < _LONG:
            return self.held[first:last]
        if first < self.begin:
            self._rewind()
        while (end := self.begin + len(self.held)) < first:
            self.begin, self.held = end, self._decode(end, min(BLOCK, first - end))
            if not len(self.held):
                return self.held
        more = self._decode(end, last - end) if last > end else self.held[:0]
        self.begin, self.held = first, torch.cat((self.held[first - self.begin :], more))
        return self.held[: last - first]

    def _rewind(self) -> None:
        self.file.close()
        self.file, _ = open_file(self.path)
        self.begin, self.held = 0, self.held[:0]


class _Balance:
    """Energy of a file's channels and of their mean, as it is decoded."""

    def __init__(self) -> None:
        self.seen, self.channels, self.mean = 0, 0.0, 0.0

    def mono(self, at: int, block: np.ndarray) -> Tensor:
        """Return the mean of the channels of frames from `at` on: (frames, channels) -> (frames,)."""
        data = torch.from_numpy(block)
        sound = data.mean(dim=1) if data.shape[1] > 1 else data.squeeze(1)
        if at <= self.seen and data.shape[1] > 1:
            self.channels += float(torch.dot(data.view(-1), data.view(-1))) / data.shape[1]
            self.mean += float(torch.dot(sound, sound))
        if at <= self.seen:
            self.seen = max(self.seen, at + len(block))
        return sound

    def cancels(self) -> bool:
        audible = self.channels > self.seen * (0.1 * SILENCE) ** 2
        return audible and self.mean < _CANCELLED * self.channels


def blocks(path: Path) -> Iterator[np.ndarray]:
    """Yield all of a file at its own rate, (frames, channels) float32 each, of a bounded size.

    Raises:
        UnreadableAudioError: the file cannot be decoded.
    """
    file, _ = open_file(path)
    with file, decoding(path, "damaged or cut short: "):
        yield from _blocks(file, _UNKNOWN)


def open_frames(path: Path) -> Frames:
    """Open a file for reading parts.

    Raises:
        UnreadableAudioError: it cannot be opened, or holds no sound.
    """
    file, exact = open_file(path)
    try:
        checked_length(path, file.frames)
        frames = (Seekable if file.seekable() else Forward)(path, file, exact)
        checked_length(path, frames.count)  # decoding may have found another
        return frames
    except BaseException:
        file.close()
        raise


def open_file(path: Path) -> tuple[Any, bool]:
    """Open a file with libsndfile after checks of its header; also return whether the length there is exact.

    Raises:
        UnreadableAudioError: it cannot be opened, or has a rate or a number of channels that audio does not have.
    """
    header = audio_headers.check(path)
    if header.fault is not None:
        raise UnreadableAudioError(path, header.fault)
    with decoding(path):
        file = _sound_file()(os.fsencode(path))  # bytes: soundfile refuses names that are not UTF-8
    lowest, highest = _RATES
    if not lowest <= file.samplerate <= highest:
        fault = f"its sample rate is {file.samplerate} Hz; expected {lowest} to {highest}"
    elif file.channels > _CHANNELS:
        fault = f"it has {file.channels} channels; expected at most {_CHANNELS}"
    else:
        return file, header.exact
    file.close()
    raise UnreadableAudioError(path, fault)


@cache
def _sound_file() -> Any:
    """Return soundfile's class, for which only the formats that seek exactly are seekable.

    soundfile seeks to where it already is at every read of a seekable file, and MP3 decoders forget what precedes.
    """
    import soundfile

    class SoundFile(soundfile.SoundFile):
        def seekable(self) -> bool:
            return self.format in _EXACT_SEEK and super().seekable()

    return SoundFile


def _blocks(file: Any, count: int) -> Iterator[np.ndarray]:
    """Yield up to `count` frames from the position of a file; at least one block, which may be empty."""
    most = max(1, BLOCK // file.channels)
    while True:
        block = file.read(min(most, count), dtype="float32", always_2d=True)
        yield block
        count -= len(block)
        if len(block) < most or count <= 0:
            return


def checked_length(path: Path, frames: int) -> int:
    if frames == 0:
        raise UnreadableAudioError(path, "zero-length audio")
    if frames >= _UNKNOWN:  # libsndfile's "unknown", for FLAC written to a pipe
        raise UnreadableAudioError(path, "its header does not say how long it is; write the file again")
    return frames


@contextmanager
def decoding(path: Path, what: str = "") -> Iterator[None]:
    """Raise every error of a decoder as `UnreadableAudioError` with the file's name."""
    try:
        yield
    except UnreadableAudioError:
        raise
    except Exception as error:
        reason = str(error).rpartition(": ")[2].rstrip(".") or type(error).__name__
        raise UnreadableAudioError(path, what + reason) from None
