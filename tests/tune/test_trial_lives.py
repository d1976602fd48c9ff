"""When a trial's training restarts after an error, and with how many workers. The trainer is made up."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from doppel_ray.cluster.plan import Node
from doppel_ray.config.experiment import Experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.train import elastic
from doppel_ray.train.elastic import WorkerScaling
from doppel_ray.tune import trial
from doppel_ray.tune.restarts import Restart, RestartPolicy
from tests.train.test_elastic import experiment

ELASTIC, FIXED = "1..4", "4"


def no_room() -> Exception:
    return ControllerError(TimeoutError("the worker group did not start"))


def lost() -> Exception:
    return WorkerGroupError("a worker was lost", {1: RuntimeError("lost")})


class LostWithNodeError(WorkerGroupError):
    """A worker was lost because its node was, without a warning."""


def lost_with_node() -> Exception:
    return LostWithNodeError("a node was lost", {1: ActorDiedError()})


def preempted() -> Exception:
    return PreemptionError(PreemptionInfo(None, {"node": [1]}))


# --- the policy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "workers", "error", "restart", "below"),
    [
        (ELASTIC, 4, no_room(), Restart.NO_ROOM, 4),
        (ELASTIC, 1, no_room(), None, None),
        (FIXED, 4, no_room(), None, None),
        (ELASTIC, 4, lost(), Restart.WORKER_LOST, None),
        (FIXED, 4, lost(), None, None),
        (ELASTIC, 4, preempted(), Restart.WORKER_LOST, None),
        (FIXED, 4, preempted(), None, None),
        (ELASTIC, 4, ActorDiedError(), Restart.CONTROLLER_DIED, None),
        (FIXED, 4, ActorDiedError(), Restart.CONTROLLER_DIED, None),
        (ELASTIC, 4, ValueError("a bug"), None, None),
    ],
)
def test_policy(allowed: str, workers: int, error: Exception, restart: Restart | None, below: int | None) -> None:
    policy = RestartPolicy(experiment(allowed).train)
    assert policy.after(error, workers) is restart
    assert policy.below == below


@pytest.mark.parametrize("error", [lost(), ActorDiedError()])
def test_policy_allows_max_failures(error: Exception) -> None:
    """Lack of room and losses of nodes do not count."""
    policy = RestartPolicy(experiment(ELASTIC, **{"train.max_failures": "2"}).train)
    assert all(policy.after(error, 4, lost_nodes=True) for _ in range(5))
    assert [policy.after(each, 4) for each in (no_room(), preempted(), error, no_room(), error)].count(None) == 0
    assert policy.after(error, 4) is None


# --- the lives --------------------------------------------------------------------------------------------------------

Train = Callable[[str, list[Exception | None]], tuple[list[int], Exception | None, str]]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Train:
    """Train with runs that end as given; return the workers of each, the final error, and the events."""
    monkeypatch.setattr(elastic, "answering_nodes", lambda: (Node("here", 8.0, 0.0),))
    dead: set[str] = set()
    monkeypatch.setattr(trial, "dead_nodes", lambda: frozenset(dead))

    def run(allowed: str, ends: list[Exception | None]) -> tuple[list[int], Exception | None, str]:
        counts: list[int] = []
        events: list[str] = []

        def build_trainer(
            of: Experiment, folder: Path, callbacks: Any, workers: int, scaling: WorkerScaling
        ) -> SimpleNamespace:
            counts.append(workers)
            end = ends[len(counts) - 1]

            def fit() -> None:
                if isinstance(end, LostWithNodeError):
                    dead.add(f"node {len(counts)}")
                if end is not None:
                    raise end

            return SimpleNamespace(fit=fit)

        monkeypatch.setattr(trial, "build_trainer", build_trainer)
        rows: Any = SimpleNamespace(add_event=events.append, reports=tmp_path / "reports.jsonl")
        settings = experiment(allowed, **{"train.max_failures": "2"})
        training = trial.Training(settings, tmp_path, rows, WorkerScaling())
        training.run()
        return counts, training.error, "\n".join(events)

    return run


def test_fewer_workers_while_there_is_no_room(train: Train) -> None:
    """After a loss as many as allowed are tried again."""
    counts, error, events = train(ELASTIC, [no_room(), no_room(), lost(), None])
    assert counts == [4, 3, 2, 4]
    assert error is None
    assert "no room for 4 train workers was found in time" in events
    assert "training continues with 2 train workers, of at most 4" in events


def test_losses_are_limited(train: Train) -> None:
    counts, error, _ = train(ELASTIC, [lost(), lost(), lost(), None])
    assert len(counts) == 3
    assert isinstance(error, WorkerGroupError)


@pytest.mark.parametrize("allowed", [ELASTIC, FIXED])
def test_losses_of_nodes_are_not_limited(train: Train, allowed: str) -> None:
    """More than train.max_failures: on spot nodes they are the rule."""
    counts, error, _ = train(allowed, [lost_with_node()] * 5 + [None])
    assert counts == [4] * 6
    assert error is None


def test_no_room_for_the_fewest_workers(train: Train) -> None:
    counts, error, _ = train(ELASTIC, [no_room()] * 4)
    assert counts == [4, 3, 2, 1]
    assert isinstance(error, ControllerError)


def test_fixed_number_of_workers(train: Train) -> None:
    """Ray Train restarts lost workers itself, but not its own controller."""
    counts, error, _ = train(FIXED, [lost(), None])
    assert counts == [4]
    assert isinstance(error, WorkerGroupError)
    counts, error, events = train(FIXED, [ActorDiedError(), None])
    assert counts == [4, 4]
    assert error is None
    assert "Ray Train's controller died; training restarts from the last checkpoint" in events


# --- the folder -------------------------------------------------------------------------------------------------------


def test_trial_refuses_a_run_folder_without_its_run_json(tmp_path: Path) -> None:
    """A node that joined later, and does not share the folder, would make one on its own disk."""
    run = tmp_path / "runs" / "mine"
    with pytest.raises(ConfigError, match=rf"does not see {run / 'run.json'}.*file system that all nodes share"):
        trial.trainable(Experiment().plain(), run, WorkerScaling())({})
    assert not list(tmp_path.iterdir())
