"""Locks on folders: one process at a time writes to a run's or a trial's folder."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from doppel_ray.core.errors import ConfigError

log = logging.getLogger(__name__)

LOCK, WORKER_LOCK = "lock", "worker.lock"
"""Lock files: of a run's or a trial's folder, and of the train worker's files in a trial's folder."""
ORPHANS = 180.0
"""Seconds to wait for the processes of a Ray whose driver was killed; they end within about a minute."""

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of a file system without locks, such as some Lustre and NFS mounts."""


def check_locks(folder: Path) -> None:
    """Refuse a folder, which need not exist yet, on a file system without locks; leaves nothing behind.

    Raises:
        ConfigError: names run.dir and a remedy.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=existing) as file:
        _acquire(file.fileno(), existing)


@contextlib.contextmanager
def lock_folder(folder: Path, lock: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Lock a folder against other processes; the kernel releases the lock when this process ends, even by kill -9.

    Args:
        folder: to lock.
        lock: name of the lock file in it.
        patience: seconds to wait for a process that holds the lock.

    Raises:
        ConfigError: another process, which is named, still holds the lock, or the file system has no locks.
    """
    # Not truncated: it names the process that holds the lock.
    with (folder / lock).open("a+", encoding="utf-8") as file:
        end, logged = time.monotonic() + patience, False
        while not _acquire(file.fileno(), folder):
            file.seek(0)
            owner = file.read() or "another process"
            if time.monotonic() >= end:
                raise ConfigError(f"{folder} is in use by {owner}; wait for it, or stop it first")
            if not logged:
                log.warning("waiting at most %.0f s for %s, which still uses %s", patience, owner, folder)
                logged = True
            time.sleep(0.5)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _acquire(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise ConfigError(
            f"run.dir: the file system of {folder} has no file locks ({error.strerror}), which keep two processes from "
            "writing to one run; choose a --run.dir on another disk, or mount this one with locks (Lustre: -o flock)"
        ) from None
    return True
