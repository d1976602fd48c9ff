"""Forks of a trial from another's checkpoint: the rows it keeps, and the index where its training continues."""

import json
from pathlib import Path

import pytest

from doppel_ray.config.experiment import Experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.runs import lineage
from doppel_ray.runs.metrics_log import ROWS
from doppel_ray.train.trainer import next_index

SMALL = Experiment.model_validate({"encoder": {"kind": "cnn", "width": 8}})


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkpoint of another trial, after its second epoch."""
    folder = tmp_path / "001" / "checkpoints" / "epoch_0002"
    folder.mkdir(parents=True)
    plain = SMALL.plain()
    checkpoint.save(folder, ModelSpec.of(plain).untrained(), plain, Position(2, 20, 640), {}, {})
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "000"
    folder.mkdir()
    (folder / ROWS).write_text("".join(json.dumps({"epoch": epoch}) + "\n" for epoch in (1, 2, 3)))
    return folder


def epochs(file: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in file.read_text().splitlines()]


def test_fork_moves_later_rows_and_starts_at_the_source_index(own: Path, other: Path) -> None:
    assert (lineage.train_run(own), next_index(own)) == ("checkpoints", 0)
    assert lineage.fork(own, other, {"pairs.delta": 0.1}) == lineage.Fork(str(other), 2, {"pairs.delta": 0.1})
    assert (lineage.train_run(own), next_index(own)) == ("checkpoints_1", 640)
    assert epochs(own / ROWS) == [1, 2]
    assert epochs(own / "rows_0.jsonl") == [1, 2, 3]


def test_fork_twice_is_one_fork(own: Path, other: Path) -> None:
    lineage.fork(own, other, {"pairs.delta": 0.1})
    assert lineage.fork(own, other, {"pairs.delta": 0.1}) is None
    assert len(lineage.forks(own)) == 1
    assert lineage.fork(own, other, {"pairs.delta": 0.2}) is not None
    assert lineage.train_run(own) == "checkpoints_2"


def test_fork_from_a_missing_checkpoint(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epoch_0009 holds no checkpoint"):
        lineage.fork(own, tmp_path / "epoch_0009", {})
    assert lineage.forks(own) == []
    assert epochs(own / ROWS) == [1, 2, 3]
