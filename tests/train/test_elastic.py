"""How many train workers a trial gets, by what the cluster has."""

import pytest
import torch

from doppel_ray.cluster.plan import Node, plan_trial
from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.train import elastic
from doppel_ray.train.elastic import WorkerScaling


def experiment(workers: str = "1..4", batch: str = "48", **more: str) -> Experiment:
    """A generator and train workers of a CPU each; no probes."""
    settings = {"train.workers": workers, "train.batch_size": batch, "train.pairs_per_epoch": "96"}
    alone = {"probes.tasks": "[]", "tune.metric": "loss", "tune.mode": "min", "tune.scheduler": "fifo"}
    return read_experiment(None, settings | alone | more)


def of(*cpus: float) -> tuple[Node, ...]:
    return tuple(Node(f"10.0.0.{number}", each, 0.0) for number, each in enumerate(cpus))


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Node, ...]]:
    """All nodes of the cluster, and what is free on them."""
    nodes: dict[str, tuple[Node, ...]] = {"all": (), "free": ()}
    monkeypatch.setattr(elastic, "answering_nodes", lambda: nodes["all"])
    monkeypatch.setattr(elastic, "free_nodes", lambda: nodes["free"])
    return nodes


def test_worker_counts_divide_the_batch() -> None:
    assert experiment("1..4", "48").train.worker_counts == (4, 3, 2, 1)
    assert experiment("1..4", "64").train.worker_counts == (4, 2, 1)
    assert not experiment("2", "48").train.elastic


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ("0..2", "expected at least 1"),
        ("3..2", "the first not above the second"),
        ("1..5", "batch_size 48 is not a multiple of 5 workers; the nearest multiple is 45"),
        ("1..48", "gives each of 48 workers 1 pair"),
        ("many", "expected a number such as 2, or a range such as 1..4"),
    ],
)
def test_invalid_range_is_refused(workers: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(workers)


def test_plan_has_the_most_workers_that_fit() -> None:
    plan = plan_trial(experiment(), of(2.1, 2.0))
    assert plan.concurrent == 1
    assert "3 train worker x 1 CPU (up to 4)" in plan.lines()[0]


def test_plan_is_refused_if_the_fewest_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="2 train worker x 1 CPU"):
        plan_trial(experiment("2..4"), of(2.0))


def test_workers_fill_the_cluster(living: dict[str, tuple[Node, ...]]) -> None:
    living["all"] = of(2.1, 2, 2)
    assert WorkerScaling().workers(experiment()) == 4
    living["all"] = of(2.1, 2)
    assert WorkerScaling().workers(experiment()) == 3
    assert WorkerScaling().workers(experiment("2..4", "64")) == 2, "64 does not divide over 3"
    assert WorkerScaling(side_by_side=2).workers(experiment()) == 1, "another trial needs as much"


def test_fewer_workers_after_no_room(living: dict[str, tuple[Node, ...]]) -> None:
    living["all"] = of(8)
    assert WorkerScaling().workers(experiment(), below=4) == 3
    assert WorkerScaling().workers(experiment(), below=1) == 1, "the fewest are tried again"


def test_fewest_workers_wait_for_room(living: dict[str, tuple[Node, ...]]) -> None:
    living["all"] = of(0.5)
    assert WorkerScaling().workers(experiment("2..4")) == 2


def test_growing_cluster_is_asked_for_the_most_once(living: dict[str, tuple[Node, ...]]) -> None:
    living["all"] = of(2.1)
    assert WorkerScaling(grows=True).workers(experiment()) == 4
    assert WorkerScaling(grows=True).workers(experiment(), below=4) == 1


def test_more_workers_need_free_nodes(living: dict[str, tuple[Node, ...]]) -> None:
    living["all"], living["free"] = of(2.1, 2), of(0, 1)
    assert WorkerScaling().more(experiment(), 2) == 3
    living["free"] = of(0, 0.5)
    assert WorkerScaling().more(experiment(), 2) is None, "other jobs use it"
    living["all"], living["free"] = of(2.1, 1), of(0, 4)
    assert WorkerScaling().more(experiment(), 2) is None, "the cluster is too small"
    assert WorkerScaling().more(experiment(), 4) is None


def test_broadcast_with_one_worker() -> None:
    assert elastic.broadcast_count(3, 1, torch.device("cpu")) == 3
    assert elastic.broadcast_count(None, 1, torch.device("cpu")) is None
