"""The copy of a run's folder in object storage (`run.storage`), kept up to date while the sweep runs.

Only the process that runs the sweep writes the copy, every half minute and at the end; nothing else needs the bucket
or its credentials. The copy can be resumed from at any moment: files that name a checkpoint are read before the
checkpoints and written after them.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from doppel_ray.core.object_storage import S3Path, explain_error
from doppel_ray.models.checkpoint import EPOCH, WITHIN
from doppel_ray.runs.folder import TUNE_STATE
from doppel_ray.runs.lease import LEASE_FILE, claim, reaching, renew
from doppel_ray.runs.lock import LOCK, WORKER_LOCK
from doppel_ray.runs.reader import RUN

INTERVAL = 30.0
"""Seconds between copies."""
PARALLEL = 4
"""Objects transferred at the same time; each is held in memory."""
LOCAL = (TUNE_STATE, LOCK, WORKER_LOCK, LEASE_FILE)
"""Names within a run's folder that only the running process can use."""

Stamp = tuple[int, int]
"""A file's size in bytes and its time of change in nanoseconds."""


class Mirror:
    """Keeps the copy of a run's folder up to date until `finish`.

    A failed copy is logged once and retried: the folder still has everything.

    Args:
        folder: of the run.
        place: of its copy.
        log: receives lines for the user.

    Raises:
        ConfigError: as `lease.claim`.
    """

    def __init__(self, folder: Path, place: S3Path, log: Callable[[str], None]) -> None:
        self.folder, self.place, self.log = folder, place, log
        claim(place, folder)
        self.copied = self._unchanged()
        """Path in the copy -> stamp of the file when it was copied."""
        self.renewed, self.failing = time.monotonic(), False
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="mirror")
        self.thread.start()

    def finish(self) -> bool:
        """Copy the rest; return whether the copy is complete."""
        self.ending.set()
        self.thread.join()
        if not self._copy(ended=True):
            return False
        self.log(f"{self.place} has a complete copy")
        return True

    def _run(self) -> None:
        while not self.ending.wait(INTERVAL):
            self._copy()

    def _copy(self, ended: bool = False) -> bool:
        try:
            self.push()
            self._renew(ended)
        except OSError as error:
            if not self.failing or ended:
                remedy = f"copy it with --resume {self.folder}" if ended else f"retrying every {INTERVAL:.0f} s"
                self.log(f"{self.place} is behind {self.folder}: {explain_error(error)}; {remedy}")
            self.failing = True
            return False
        if self.failing:
            self.log(f"{self.place} is up to date again")
        self.failing = False
        return True

    def _renew(self, ended: bool = False) -> None:
        renew(self.place, self.folder, ended)
        self.renewed = time.monotonic()

    def push(self) -> None:
        """Bring the copy up to date, once.

        Raises:
            OSError: the copy is not, or not wholly, up to date.
        """
        stamps = {path: stamp for path, stamp in _stamps(self.folder).items() if not _in_checkpoint(path)}
        state = {
            path: content for path in self._changed(stamps) if (content := _content(self.folder / path)) is not None
        }
        # Checkpoints that the state names are complete by now.
        weights = {path: stamp for path, stamp in _stamps(self.folder).items() if _in_checkpoint(path)}

        def put(path: str) -> None:
            content = state[path] if path in state else _content(self.folder / path)
            if content is not None:  # else deleted since it was listed
                self.place.write(path, content)
                self.copied[path] = (stamps | weights)[path]
            if time.monotonic() - self.renewed > INTERVAL:  # a long copy must not lose the lease
                self._renew()

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(put, self._changed(weights)))
            list(pool.map(put, state))
        if (self.folder / RUN).exists():  # without it the whole folder is being deleted: keep the copy
            for path in self.copied.keys() - stamps.keys() - weights.keys():
                self.place.delete(path)
                del self.copied[path]

    def _changed(self, stamps: dict[str, Stamp]) -> list[str]:
        return [path for path, stamp in stamps.items() if self.copied.get(path) != stamp]

    def _unchanged(self) -> dict[str, Stamp]:
        """Return the files that an earlier process has copied and that have not changed since."""
        with reaching(self.place):
            entries = self.place.entries()
        return {
            path: (size, changed)
            for path, (size, changed) in _stamps(self.folder).items()
            if path in entries and entries[path].size == size and changed <= entries[path].written * 1e9
        }


def is_copied(name: str) -> bool:
    """Return whether a file or folder of this name belongs into the copy."""
    return name not in LOCAL and not name.startswith(".") and not name.endswith(".partial")


def _stamps(folder: Path) -> dict[str, Stamp]:
    """Return the stamp of every file of a run's folder to copy, by its path within the folder."""
    found = {}
    for top, folders, files in os.walk(folder):
        folders[:] = filter(is_copied, folders)
        for name in filter(is_copied, files):
            path = Path(top, name)
            try:
                about = path.stat()
            except FileNotFoundError:
                continue
            found[str(path.relative_to(folder))] = (about.st_size, about.st_mtime_ns)
    return found


def _in_checkpoint(path: str) -> bool:
    return any(part.startswith((EPOCH, WITHIN)) for part in Path(path).parts)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
