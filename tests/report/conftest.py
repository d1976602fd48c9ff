"""A run folder for many tests."""

from pathlib import Path

import pytest

from tests.made_runs import write_sweep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of three trials: one best in the middle of its run, one stopped early, one without a score."""
    return write_sweep(tmp_path / "sweep")
