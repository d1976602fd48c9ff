"""One process at a time: a folder that two would write to is held by the one that does."""

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from doppel_ray.core.errors import ConfigError

log = logging.getLogger(__name__)

LOCK, WORKER_LOCK = "lock", "worker.lock"
"""Files that stand for a run's or a trial's folder, and for the train worker's part of it."""
ORPHANS = 180.0
"""Seconds within which the processes of a Ray end whose driver was killed; they take a minute."""


@contextlib.contextmanager
def lock_folder(folder: Path, lock: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes out of a folder; the hold ends with this process, however it ends.

    Args:
        folder: what is held.
        lock: name of the file there that stands for it.
        patience: seconds to wait for a process that holds it.

    Raises:
        ConfigError: another process holds it.
    """
    with (folder / lock).open("a+") as file:
        end, told = time.monotonic() + patience, False
        while not _taken(file.fileno()):
            file.seek(0)
            holder = file.read() or "another process"
            if time.monotonic() >= end:
                raise ConfigError(f"{folder} is in use by {holder}; wait for it, or stop it first")
            if not told:
                log.warning("waits for %s, which still uses %s, for %.0f s at most", holder, folder, patience)
                told = True
            time.sleep(0.5)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
