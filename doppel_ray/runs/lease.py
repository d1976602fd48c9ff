"""Which process runs the run whose copy is in object storage, where there are no locks.

An object beside the copy names the process and when it was last seen. Two processes that start within the same second
are not told apart.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path, explain_error

LEASE_FILE = "holder.json"
LEASE_SECONDS = 300.0
"""Seconds without a renewal after which a process on another machine counts as dead."""


@dataclass(frozen=True)
class Lease:
    """A process's right to run what is at a place.

    Attributes:
        host, process: the machine and the process id on it.
        folder: run folder that the process works in.
        seen: time of the last renewal, in seconds since 1970.
        ended: the process has finished in order.
    """

    host: str
    process: int
    folder: str
    seen: float
    ended: bool = False

    @classmethod
    def here(cls, folder: Path) -> "Lease":
        """Return this process's lease, renewed now."""
        return cls(socket.gethostname(), os.getpid(), str(folder.resolve()), time.time())

    @classmethod
    def read(cls, place: S3Path) -> "Lease | None":
        """Return the lease at a place; None if there never was one."""
        found = place.read(LEASE_FILE)
        return None if found is None else cls(**json.loads(found))

    def write(self, place: S3Path) -> None:
        """Write the lease in place of any other."""
        place.write(LEASE_FILE, json.dumps(asdict(self)).encode())

    def is_held(self) -> bool:
        """Return whether its process still runs, as far as can be known from here."""
        if self.host == socket.gethostname() and not Path("/proc", str(self.process)).exists():
            return False
        return not self.ended and time.time() - self.seen < LEASE_SECONDS


def check_free(place: S3Path, folder: Path, fetched: bool = False) -> None:
    """Refuse a run that another process runs, or that was continued in another folder.

    Args:
        place: of the run's copy.
        folder: of the run, here. A process here that holds it is found by `lock_folder`.
        fetched: `folder` has, or will get, the content of `place`.

    Raises:
        ConfigError: names the other process.
    """
    with reaching(place):
        known = Lease.read(place)
    own = Lease.here(folder)
    if known is None or (known.host, known.folder) == (own.host, own.folder):
        return
    other = f"process {known.process} on {known.host}, in {known.folder}"
    if known.is_held():
        raise ConfigError(
            f"{place} is in use by {other}; wait for it, or stop it first "
            f"(a killed process is forgotten after {LEASE_SECONDS / 60:.0f} minutes)"
        )
    if not fetched:
        raise ConfigError(
            f"{place} was continued by {other}; your copy in {folder} is out of date. "
            f"Resume from the newer one with --resume '{place}'"
        )


def claim(place: S3Path, folder: Path, fetched: bool = False) -> None:
    """Write this process's lease at a place; arguments and errors as `check_free`."""
    check_free(place, folder, fetched)
    with reaching(place):
        Lease.here(folder).write(place)


def renew(place: S3Path, folder: Path, ended: bool = False) -> None:
    """Renew this process's lease.

    Raises:
        OSError: the place cannot be reached.
    """
    replace(Lease.here(folder), ended=ended).write(place)


@contextmanager
def reaching(place: S3Path) -> Iterator[None]:
    """Turn errors of object storage into a ConfigError with the remedy."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{place} cannot be used: {explain_error(error)}") from error
