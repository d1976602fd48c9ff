"""What the driver reports when nodes are lost and come back."""

import pytest

from doppel_ray.cluster import capacity
from doppel_ray.cluster.capacity import CapacityMonitor
from doppel_ray.cluster.plan import Node
from doppel_ray.config.experiment import Experiment, read_experiment

HEAD, GONE = Node("10.9.0.2", 1.0, 0.0), Node("10.9.0.3", 1.0, 0.0)


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A trial that needs both nodes."""
    monkeypatch.setattr(capacity, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(capacity, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(capacity, "possible_nodes", lambda living, experiment: ())
    return read_experiment(
        None,
        {
            "train.cpus_per_worker": "0.7",
            "generators.0.num_cpus": "0.7",
            "probes.cpus": "0.1",
            "probes.every": "1",
            "train.start_timeout": "600",
        },
    )


def test_lost_node_is_reported_once(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CapacityMonitor(experiment)
    monkeypatch.setattr(capacity, "living_nodes", lambda: (HEAD, GONE))
    assert found.notice(["000_delta=0.05"]) is None
    monkeypatch.setattr(capacity, "living_nodes", lambda: (HEAD,))
    told = found.notice(["000_delta=0.05"])
    assert told is not None
    for part in (
        "no trial fits this cluster",
        "a trial needs 1.51 CPU",
        "the cluster has 1 CPUs, 0 GPUs on 1 node",
        "lost nodes: 10.9.0.3",
        "waiting trials: 000_delta=0.05",
        "ray start --address HEAD:6379",
        "within 10 minutes (train.start_timeout) the trials continue",
    ):
        assert part in told
    assert found.notice(["000_delta=0.05"]) is None, "once"
    monkeypatch.setattr(capacity, "living_nodes", lambda: (HEAD, GONE))
    assert "room for the running trials again" in str(found.notice(["000_delta=0.05"]))


def test_room_for_fewer_trials_than_run_is_reported(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CapacityMonitor(experiment)
    monkeypatch.setattr(capacity, "living_nodes", lambda: (HEAD, GONE))
    assert "1 of 2 running trials fit" in str(found.notice(["000_delta=0.05", "001_delta=0.25"]))
