"""Locks of folders, between processes."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doppel_ray.config.experiment import read_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs.lock import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from doppel_ray.runs.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_lock_held_by_another_process(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(ConfigError, match=f"in use by process {other.pid} on"), lock_folder(tmp_path):
        pass


def test_lock_after_kill(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    with lock_folder(tmp_path, patience=20.0):
        pass
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some Lustre and NFS mounts have none: a new run is refused before its folder is made, a lock by name."""

    def flock(descriptor: int, flags: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    experiment = read_experiment(None, {"run.dir": str(tmp_path / "new" / "runs")})
    with pytest.raises(ConfigError, match=r"^run\.dir: .* has no file locks .* choose a --run\.dir on another disk"):
        run_folder.create(experiment, None, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"run\.dir: "), lock_folder(tmp_path):
        pass
