"""Find the processes of this test's own Ray, and not those of another on the machine."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def title(pid: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def descendants(named: str, ancestor: int | None = None) -> list[int]:
    """Return the processes below `ancestor` (default: this one) whose command line holds `named`."""

    def below(pid: int) -> bool:
        while pid > 1:
            pid = _parent(pid)
            if pid == (ancestor or os.getpid()):
                return True
        return False

    return [pid for pid in all_processes() if named in title(pid) and below(pid)]


def marked(marker: str) -> list[int]:
    """Return the processes that have `marker` in their environment, as children of a marked process do."""

    def holds(pid: int) -> bool:
        try:
            return marker.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    return [pid for pid in all_processes() if pid != os.getpid() and holds(pid)]


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    """Return whether `condition` becomes true within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return bool(condition())
