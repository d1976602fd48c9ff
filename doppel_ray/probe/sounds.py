"""The sounds of a task: rendered, or recordings that are decoded once and kept on disk for the next probe."""

import functools
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from doppel_ray.core.files import cache_folder
from doppel_ray.data import audio_files
from doppel_ray.data.audio_folders import printable
from doppel_ray.probe.task import Sounds

log = logging.getLogger(__name__)

THREADS = 4
"""Files decoded at once."""

_LAYOUT = 1
"""Version of the layout of the kept files; `audio_files.VERSION` is that of the samples in them."""

_ABANDONED = 3600.0
"""Seconds after which an unfinished file is taken for one of a process that has died."""

Progress = Callable[[Iterable[Tensor | None]], Iterable[Tensor | None]]
"""Wraps sounds to show how many are done, as `core.cli.with_progress` does."""


class Rendered:
    """Sounds in memory.

    Args:
        sounds: (n, samples) float32.
    """

    def __init__(self, sounds: Tensor) -> None:
        self.sounds = sounds
        self.failed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.sounds)

    def read(self, item: int) -> Tensor:
        return self.sounds[item]


class Recorded:
    """Sounds in files, decoded on every read.

    Args:
        paths: of the files.
        sample_rate: of what is read, in Hz.
    """

    def __init__(self, paths: Sequence[Path], sample_rate: int) -> None:
        self.paths, self.sample_rate = tuple(paths), sample_rate
        self.failed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, item: int) -> Tensor:
        return audio_files.read(self.paths[item], self.sample_rate)

    def unreadable(self, progress: Progress | None = None) -> dict[Path, str]:
        """Decode every file, and return those that cannot be read, each with the reason.

        Args:
            progress: wraps the sounds as they are decoded, to show how many are done; None: show nothing.
        """
        sounds = stream(self, range(len(self)))
        for _ in progress(sounds) if progress else sounds:
            pass
        return _reasons(self)


class Cached(Recorded):
    """Sounds in files, all decoded at the first read and kept on disk for every process of a user.

    The key has the paths, sizes and times of the files, the sample rate, and the version of the code that reads them.
    If the cache cannot be written, or would exceed the limit, the files are decoded on every read.

    Args:
        paths: of the files.
        sample_rate: of what is read, in Hz.
        limit: bytes of the whole cache, for all tasks and rates; the least recently used is removed first.
    """

    def __init__(self, paths: Sequence[Path], sample_rate: int, limit: int) -> None:
        super().__init__(paths, sample_rate)
        self.limit = limit
        self._lock = threading.Lock()
        self._opened = False
        self._kept: _Kept | None = None

    def read(self, item: int) -> Tensor:
        kept = self._opened_once()
        sound = kept.sound(item) if kept else None
        return super().read(item) if sound is None else sound

    def unreadable(self, progress: Progress | None = None) -> dict[Path, str]:
        kept = self._opened_once(progress)
        if kept is None:
            return super().unreadable(progress)
        for _ in stream(self, np.flatnonzero(kept.lengths < 0).tolist()):  # only these are decoded again
            pass
        return _reasons(self)

    def _opened_once(self, progress: Progress | None = None) -> "_Kept | None":
        with self._lock:
            if not self._opened:
                self._kept, self._opened = self._open(progress), True
        return self._kept

    def _open(self, progress: Progress | None) -> "_Kept | None":
        file = cache_folder() / "sounds" / f"{self._key()}.f32"
        try:
            return _Kept(file, len(self))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("decoding again: %s cannot be used: %s", file, error)
        need = self._need()
        if need > self.limit:
            _warn_once(
                f"{len(self)} recordings from {self.paths[0].parent} on take {need / 1e9:.1f} GB at {self.sample_rate} "
                f"Hz; probes.cache allows {self.limit / 1e9:g} GB, so every probe decodes them again"
            )
            return None
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_room(file.parent, self.limit - need)
            self._write(file, progress)
            return _Kept(file, len(self))
        except OSError as error:
            _warn_once(f"decoded recordings cannot be kept in {file.parent} ({error}); every probe decodes them again")
            return None

    def _key(self) -> str:
        def identity(path: Path) -> tuple[str, int, int]:
            try:
                found = path.stat()
            except OSError:
                return os.path.abspath(path), -1, -1
            return os.path.abspath(path), found.st_size, found.st_mtime_ns

        described = json.dumps([_LAYOUT, audio_files.VERSION, self.sample_rate, *map(identity, self.paths)])
        return hashlib.sha256(described.encode()).hexdigest()[:24]

    def _need(self) -> int:
        """Return the bytes of all decoded sounds, by their headers."""

        def seconds(path: Path) -> float:
            try:
                return audio_files.duration(path)
            except audio_files.UnreadableAudioError:
                return 0.0

        with ThreadPoolExecutor(THREADS) as pool:
            return round(4 * self.sample_rate * sum(pool.map(seconds, self.paths))) + 8 * (len(self) + 1)

    def _write(self, file: Path, progress: Progress | None) -> None:
        """Decode everything into a file, renamed when it is complete; see `_Kept` for its layout."""
        header = np.full(len(self) + 1, len(self), dtype=np.int64)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as partial:
            try:
                partial.write(header.tobytes())
                direct = Recorded(self.paths, self.sample_rate)
                sounds = stream(direct, range(len(self)))
                for item, sound in enumerate(progress(sounds) if progress else sounds):
                    header[item + 1] = -1 if sound is None else len(sound)
                    if sound is not None:
                        partial.write(sound.numpy().tobytes())
                partial.seek(0)
                partial.write(header.tobytes())
                partial.close()
                os.replace(partial.name, file)
            except BaseException:
                Path(partial.name).unlink(missing_ok=True)
                raise
        self.failed |= direct.failed


class _Kept:
    """Decoded sounds in a file: their number and the samples of each (-1: unreadable) as int64, then all samples,
    one sound after another, as float32.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is damaged.
    """

    def __init__(self, file: Path, sounds: int) -> None:
        header = np.fromfile(file, dtype=np.int64, count=sounds + 1)
        start = 8 * (sounds + 1)
        self.lengths = header[1:]
        self.ends = np.cumsum(self.lengths.clip(min=0))
        samples = int(self.ends[-1]) if len(header) == sounds + 1 else -1
        if header[:1].tolist() != [sounds] or file.stat().st_size != start + 4 * samples:
            raise ValueError("it is damaged or cut short")
        self.samples = np.memmap(file, np.float32, "r", start, (samples,)) if samples else np.empty(0, np.float32)
        os.utime(file)  # marks it as used now: the least recently used is removed first

    def sound(self, item: int) -> Tensor | None:
        """Return one sound, or None if its file cannot be read."""
        if self.lengths[item] < 0:
            return None
        end = self.ends[item]
        return torch.from_numpy(np.array(self.samples[end - self.lengths[item] : end]))


def stream(sounds: Sounds, items: Iterable[int]) -> Iterator[Tensor | None]:
    """Yield sounds in the order of `items`, (samples,) float32 each, read ahead in threads.

    A sound that cannot be read is None, with the reason in `sounds.failed`.
    """

    def read(item: int) -> Tensor | None:
        try:
            return sounds.read(item)
        except audio_files.UnreadableAudioError as error:
            sounds.failed[item] = str(error)
            return None

    with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:
        ahead: deque[Future[Tensor | None]] = deque()
        for item in items:
            ahead.append(pool.submit(read, item))
            if len(ahead) > 4 * THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _reasons(sounds: Recorded) -> dict[Path, str]:
    """Return the files that could not be read, in their order, each with the reason."""
    named = ((sounds.paths[item], reason) for item, reason in sorted(sounds.failed.items()))
    return {path: reason.removeprefix(f"{printable(path)}: ") for path, reason in named}


def _make_room(folder: Path, room: int) -> None:
    """Remove the least recently used files until the rest fit `room` bytes, and unfinished ones of dead processes."""
    for partial in folder.glob("*.partial"):
        if time.time() - _modified(partial) > _ABANDONED:
            partial.unlink(missing_ok=True)
    for kept in sorted(folder.glob("*.f32"), key=_modified, reverse=True):
        try:
            room -= kept.stat().st_size
        except FileNotFoundError:  # removed by another process
            continue
        if room < 0:
            kept.unlink(missing_ok=True)


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return time.time()


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
