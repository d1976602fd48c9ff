"""The lives of a trial's training: what a failure leads to, and with how many workers. The trainer is made up."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from doppel_ray.cluster.plan import Node
from doppel_ray.config.experiment import Experiment
from doppel_ray.train import elastic
from doppel_ray.train.elastic import WorkerScaling
from doppel_ray.tune import trial
from tests.train.test_elastic import experiment

ELASTIC, FIXED = "1..4", "4"

Train = Callable[[str, list[Exception | None]], tuple[list[int], list[Exception], str]]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Train:
    """Train with lives that end as told: the workers of each, what it failed of in the end, and what was told."""
    monkeypatch.setattr(elastic, "answering_nodes", lambda: (Node("here", 8.0, 0.0),))

    def run(allowed: str, ends: list[Exception | None]) -> tuple[list[int], list[Exception], str]:
        counts: list[int] = []
        said: list[str] = []
        failure: list[Exception] = []

        def trainer(of: Experiment, folder: Path, callbacks: Any, workers: int, room: WorkerScaling) -> SimpleNamespace:
            counts.append(workers)
            end = ends[len(counts) - 1]

            def fit() -> None:
                if end is not None:
                    raise end

            return SimpleNamespace(fit=fit)

        monkeypatch.setattr(trial, "trainer", trainer)
        rows: Any = SimpleNamespace(tell=said.append, reports=tmp_path / "reports.jsonl")
        trial._fit(experiment(allowed, **{"train.max_failures": "2"}), tmp_path, rows, failure, WorkerScaling())
        return counts, failure, "\n".join(said)

    return run


def no_room() -> Exception:
    return ControllerError(TimeoutError("the worker group did not start"))


def lost() -> Exception:
    return WorkerGroupError("a worker was lost", {1: RuntimeError("lost")})


def test_fewer_workers_are_tried_where_no_room_was_found_and_then_as_many_as_there_are_allowed(train: Train) -> None:
    counts, failure, said = train(ELASTIC, [no_room(), no_room(), lost(), None])
    assert counts == [4, 3, 2, 4], "what found no room is no loss, and what is lost is counted anew"
    assert not failure
    assert "no room for 4 train workers was found in time" in said
    assert "training goes on with 2 train workers, of at most 4" in said


def test_losses_are_counted(train: Train) -> None:
    counts, failure, _ = train(ELASTIC, [lost(), lost(), lost(), None])
    assert len(counts) == 3
    assert isinstance(failure[0], WorkerGroupError)


def test_the_fewest_that_find_no_room_fail(train: Train) -> None:
    counts, failure, _ = train(ELASTIC, [no_room()] * 4)
    assert counts == [4, 3, 2, 1]
    assert isinstance(failure[0], ControllerError)


def test_a_fixed_number_of_workers_leaves_losses_to_ray_train_but_not_its_controller(train: Train) -> None:
    counts, failure, _ = train(FIXED, [lost(), None])
    assert counts == [4]
    assert isinstance(failure[0], WorkerGroupError)
    counts, failure, said = train(FIXED, [ActorDiedError(), None])
    assert counts == [4, 4]
    assert not failure
    assert "controller died and is started again" in said
