"""One process at a time in a folder."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doppel_ray.core.errors import ConfigError
from doppel_ray.runs.lock import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from doppel_ray.hold import hold
with hold(Path(sys.argv[1])):
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


def test_a_folder_that_another_process_holds_is_refused_and_the_process_named(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(ConfigError, match=f"in use by process {other.pid} on"), lock_folder(tmp_path):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    with lock_folder(tmp_path, patience=20.0):
        pass
    with lock_folder(tmp_path):
        pass
