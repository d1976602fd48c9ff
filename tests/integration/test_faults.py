"""A sweep on several nodes, of which parts are killed: a short run of `scripts/chaos.py`.

Three minutes on two idle cores: an undisturbed sweep, and one whose processes restart again and again.
Generators, train workers, probes and Ray Train's controller are killed in test_trial.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_sweep_survives_kills_of_node_trial_and_stream(tmp_path: Path) -> None:
    """One kill -9 of each, at epochs drawn from the seed; the script checks the results."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "chaos.py"), "--keep", str(tmp_path / "runs")]
    short = ["--only", "node", "trial", "stream", "--kills", "3", "--epochs", "8", "--pairs", "128", "--nodes", "2"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*command, *short], env=environment, capture_output=True, text=True)
    output = "".join(file.read_text() for file in sorted(tmp_path.glob("runs/*/output.txt")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}\n{output}"
