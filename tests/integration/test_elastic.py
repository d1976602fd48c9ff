"""A trial continues with as many train workers as there is room for, with the same batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.integration.nodes_that_go import EPOCHS
from tests.integration.test_trial import events, experiment, losses, run


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("local_ray")
def test_fewer_workers_after_a_lost_node_and_more_after_a_new_one(tmp_path: Path) -> None:
    """Three minutes on two idle cores: three nodes, and three times the processes of a trial; then it again, alone."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.nodes_that_go", str(tmp_path / "trials" / "elastic")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    assert found, done.stderr[-3000:]
    rows = json.loads(found[0])
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    counts = [row["workers"] for row in rows]
    assert counts[0] == 2
    assert 1 in counts
    assert counts[-1] == 2
    assert "training continues with 1 train workers, of at most 2" in events(rows)
    assert "there is room for 2 train workers: training restarts with them" in events(rows)
    alone = run(experiment(train={"epochs": EPOCHS}), tmp_path / "trials" / "alone")
    # Two workers sum in another order, which makes 1e-3 of the loss within 200 steps (measured); the batches of another
    # epoch make 3e-2.
    assert losses(rows) == pytest.approx(losses(alone), abs=4e-3)
