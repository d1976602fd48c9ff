"""Where a trial's processes go on a cluster of several nodes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY


def printed(module: str, *arguments: str) -> list[Any]:
    """Run a module beside this one in a process of its own; return the list that it prints."""
    command = [sys.executable, "-m", f"tests.integration.{module}", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    # The exit code says nothing: Ray Data's threads may outlive its Ray, and end the process with 1.
    found = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert found, done.stderr
    return list(json.loads(found[0]))


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_generators_avoid_train_workers_while_there_is_room() -> None:
    """Half a minute on two idle cores: three nodes are started, and five generators."""
    two, three = printed("three_nodes")
    assert two == [0, 2], "both on the node without train workers"
    assert three == [1, 2], "the third beside the train worker"


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_node_that_joins_later_is_asked_for_the_run_folder(tmp_path: Path) -> None:
    """Twenty seconds on two idle cores: three nodes are started."""
    (tmp_path / "run.json").write_text("{}")
    missing, there = printed("joined_nodes", str(tmp_path))
    assert f"has joined the cluster, but does not see {tmp_path / 'elsewhere'}: trials fail there" in missing
    assert there is None
