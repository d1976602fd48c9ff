"""A run's folder and its copy in object storage (`run.storage`).

The process that runs a sweep, which sees the whole folder, brings the copy up to date every half minute and at the end;
nothing else needs the bucket, or its credentials. The copy can be gone on with at any moment: what says that a
checkpoint exists is read before the checkpoints and written after them.

One process at a time may run what is there. Object storage has no locks, so that an object says who does, and since
when; two that start within the same second are not told apart.
"""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path, explain_error
from doppel_ray.models.checkpoint import EPOCH, WITHIN
from doppel_ray.runs.folder import TUNE_STATE
from doppel_ray.runs.lock import LOCK, WORKER_LOCK
from doppel_ray.runs.reader import RUN

EVERY = 30.0
"""Seconds between copies."""
LEASE = 300.0
"""Seconds after its last word when a process on another machine is taken to have died."""
HOLDER = "holder.json"
AT_ONCE = 4
"""Objects that are on their way side by side; each is held in memory."""
OWN = (TUNE_STATE, LOCK, WORKER_LOCK, HOLDER)
"""Names within a run's folder that are of use to this life of the sweep alone."""

Stamp = tuple[int, int]
"""Size and time of change, in nanoseconds, of a file."""


@dataclass(frozen=True)
class Holder:
    """Who runs what is at a place.

    Attributes:
        host, process: the machine and the process's number on it.
        folder: where it works.
        seen: when it last said so, in seconds since 1970.
        ended: it has ended in order.
    """

    host: str
    process: int
    folder: str
    seen: float
    ended: bool = False

    @classmethod
    def here(cls, folder: Path) -> "Holder":
        return cls(socket.gethostname(), os.getpid(), str(folder.resolve()), time.time())

    @classmethod
    def of(cls, place: S3Path) -> "Holder | None":
        found = place.read(HOLDER)
        return None if found is None else cls(**json.loads(found))

    def is_running(self) -> bool:
        if self.host == socket.gethostname() and not Path("/proc", str(self.process)).exists():
            return False
        return not self.ended and time.time() - self.seen < LEASE

    def tell(self, place: S3Path) -> None:
        place.write(HOLDER, json.dumps(asdict(self)).encode())


def check_free(place: S3Path, folder: Path, fetched: bool = False) -> None:
    """Refuse to run what another process runs, or another folder has gone on with.

    Args:
        place: of a run.
        folder: the run's, here; where another process holds that, `lock_folder` tells.
        fetched: it holds, or will hold, what the place does.

    Raises:
        ConfigError: says who it is.
    """
    with _reaching(place):
        known = Holder.of(place)
    own = Holder.here(folder)
    if known is None or (known.host, known.folder) == (own.host, own.folder):
        return
    whose = f"process {known.process} on {known.host}, in {known.folder}"
    if known.is_running():
        raise ConfigError(
            f"{place} is in use by {whose}; wait for it, or stop it first "
            f"(one that was killed is forgotten after {LEASE / 60:.0f} minutes)"
        )
    if not fetched:
        raise ConfigError(
            f"{place} has been gone on with by {whose}, and {folder} is behind it; go on from there: --resume '{place}'"
        )


def claim(place: S3Path, folder: Path, fetched: bool = False) -> None:
    """Let a place say that this process runs what is there; arguments and errors as `check_free`."""
    check_free(place, folder, fetched)
    with _reaching(place):
        Holder.here(folder).tell(place)


@contextmanager
def _reaching(place: S3Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{place} cannot be used: {explain_error(error)}") from error


# --- there ------------------------------------------------------------------------------------------------------------


class Mirror:
    """Keeps the copy of a run's folder up to date until `finish`.

    A copy that fails is said once and tried again: what is in the folder is not lost.

    Args:
        folder: the run's.
        place: of its copy.
        say: takes a line for the user.

    Raises:
        ConfigError: as `claim`.
    """

    def __init__(self, folder: Path, place: S3Path, say: Callable[[str], None]) -> None:
        self.folder, self.place, self.say = folder, place, say
        claim(place, folder)
        self.known = self._known()
        """What the copy has: path -> the file's stamp when it was copied."""
        self.told, self.troubled = time.monotonic(), False
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="mirror")
        self.thread.start()

    def finish(self) -> bool:
        """Copy what is left; returns whether all is there."""
        self.ending.set()
        self.thread.join()
        if not self._copy(ended=True):
            return False
        self.say(f"{self.place} has all of it")
        return True

    def _run(self) -> None:
        while not self.ending.wait(EVERY):
            self._copy()

    def _copy(self, ended: bool = False) -> bool:
        try:
            self.push()
            self._tell(ended)
        except OSError as error:
            if not self.troubled or ended:
                again = f"it is tried again every {EVERY:.0f} s" if not ended else f"copy it: --resume {self.folder}"
                self.say(f"{self.place} is behind {self.folder}: {explain_error(error)}; {again}")
            self.troubled = True
            return False
        if self.troubled:
            self.say(f"{self.place} is up to date again")
        self.troubled = False
        return True

    def _tell(self, ended: bool = False) -> None:
        replace(Holder.here(self.folder), ended=ended).tell(self.place)
        self.told = time.monotonic()

    def push(self) -> None:
        """Bring the copy up to date, once.

        Raises:
            OSError: the copy is not, or not wholly, up to date.
        """
        stamps = {path: stamp for path, stamp in _stamps(self.folder).items() if not _in_checkpoint(path)}
        state = {
            path: content for path in self._changed(stamps) if (content := _content(self.folder / path)) is not None
        }
        # Those that the state speaks of are whole by now.
        weights = {path: stamp for path, stamp in _stamps(self.folder).items() if _in_checkpoint(path)}

        def put(path: str) -> None:
            content = state[path] if path in state else _content(self.folder / path)
            if content is not None:  # else it has been deleted since
                self.place.write(path, content)
                self.known[path] = (stamps | weights)[path]
            if time.monotonic() - self.told > EVERY:  # there may be much to copy
                self._tell()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(put, self._changed(weights)))
            list(pool.map(put, state))
        if (self.folder / RUN).exists():  # else it is the folder that is being deleted, and not what it holds
            for path in self.known.keys() - stamps.keys() - weights.keys():
                self.place.delete(path)
                del self.known[path]

    def _changed(self, stamps: dict[str, Stamp]) -> list[str]:
        return [path for path, stamp in stamps.items() if self.known.get(path) != stamp]

    def _known(self) -> dict[str, Stamp]:
        """The files that the copy has as they are, from an earlier life of the sweep."""
        with _reaching(self.place):
            there = self.place.entries()
        return {
            path: (size, changed)
            for path, (size, changed) in _stamps(self.folder).items()
            if path in there and there[path].size == size and changed <= there[path].written * 1e9
        }


def _stamps(folder: Path) -> dict[str, Stamp]:
    """Every file of a run's folder that is to be copied, by its path within."""
    found = {}
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_own(name)]
        for name in files:
            if _is_own(name):
                continue
            path = Path(top, name)
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            found[str(path.relative_to(folder))] = (about.st_size, about.st_mtime_ns)
    return found


def _is_own(name: str) -> bool:
    return name in OWN or name.startswith(".") or name.endswith(".partial")


def _in_checkpoint(path: str) -> bool:
    return any(part.startswith((EPOCH, WITHIN)) for part in Path(path).parts)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


# --- and back ---------------------------------------------------------------------------------------------------------


def fetch(place: S3Path, runs: Path, say: Callable[[str], None]) -> Path:
    """Bring a run into a folder of its own, to go on with it there.

    Args:
        place: of the run.
        runs: folder that the run's folder shall be in.
        say: takes a line for the user.

    Returns:
        The run's folder.

    Raises:
        ConfigError: there is no such run, it is in use, or it cannot be brought here.
    """
    folder = runs / place.name
    if folder.exists():
        raise ConfigError(
            f"{folder} exists: go on with it, --resume {folder}, or bring {place} elsewhere: --run.dir DIR"
        )
    place.parent.check()
    check_free(place, folder, fetched=True)
    partial = runs / f".{os.getpid()}.{place.name}"
    try:
        download(place, partial, say)
        claim(place, folder, fetched=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def download(place: S3Path, folder: Path, say: Callable[[str], None], without: Collection[str] = ()) -> None:
    """Bring a run's files into a new folder.

    Args:
        place: of the run.
        folder: is made.
        say: takes a line for the user.
        without: names of files that are not needed.

    Raises:
        ConfigError: there is no such run, or it cannot be brought here.
    """
    with _reaching(place):
        entries = {
            p: e for p, e in place.entries().items() if not _is_own(Path(p).name) and Path(p).name not in without
        }
        if RUN not in entries:
            raise ConfigError(f"{place} holds no run: {RUN} is missing")
    size = sum(entry.size for entry in entries.values())

    def get(path: str) -> None:
        with _reaching(place):
            content = place.read(path)
        if content is None:
            return  # it has been deleted since
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (entries[path].written, entries[path].written))

    try:
        folder.mkdir(parents=True)
        if size > (free := shutil.disk_usage(folder).free):
            raise ConfigError(f"{place} takes {size / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB left")
        say(f"copies {place} to {folder.parent}: {len(entries)} files, {size / 1e6:.0f} MB")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(get, entries))
    except OSError as error:
        raise ConfigError(f"{place} cannot be copied to {folder}: {error.strerror or error}") from None
