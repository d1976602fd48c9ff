"""A sweep on a cluster of several nodes, of which parts are killed: `scripts/chaos.py`, a short form.

On two idle cores it takes three minutes: a sweep in peace, and one whose processes have to start again and again.
Generators, train workers, probes and Ray Train's controller are killed in test_trial.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_node_a_trial_and_its_stream_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    """A kill -9 of each, on epochs drawn from the seed; the script itself says what has to hold."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "chaos.py"), "--keep", str(tmp_path / "runs")]
    short = ["--only", "node", "trial", "stream", "--kills", "3", "--epochs", "8", "--pairs", "128", "--nodes", "2"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, *short], env=environment, capture_output=True, text=True)
    output = "".join(file.read_text() for file in sorted(tmp_path.glob("runs/*/output.txt")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}\n{output}"
