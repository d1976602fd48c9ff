"""Where a trial's processes go on a cluster of several nodes."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_generators_avoid_train_workers_while_there_is_room() -> None:
    """Half a minute on two idle cores: three nodes are started, and five generators."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.three_nodes"], cwd=REPOSITORY, capture_output=True, text=True
    )
    # The exit code says nothing: Ray Data's threads may outlive its Ray, and end the process with 1.
    found = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    assert found, done.stderr
    two, three = json.loads(found[0])
    assert two == [0, 2], "both on the node without train workers"
    assert three == [1, 2], "the third beside the train worker"
