"""What a cluster may grow to: asked of its own autoscaler, and cut to what its trials can use."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

from doppel_ray.cluster import growth
from doppel_ray.cluster.growth import autoscaler_config, autoscaler_nodes
from doppel_ray.cluster.plan import Node, plan_trial
from doppel_ray.config.experiment import Experiment, read_experiment
from tests.conftest import REPOSITORY

HEAD = Node("head", 0.0, 0.0)
GCS = "10.9.0.2:6379"


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Path]:
    """A process with the arguments of the autoscaler that `ray start` runs; returns its file."""
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps({"cluster_name": "mine"}))
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    arguments = [f"--gcs-address={GCS}", f"--autoscaling-config={file}"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield file
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("monitor")
def test_file_counts_only_for_the_cluster_whose_autoscaler_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that several heads share, or that a cluster has left, holds the file of another."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert autoscaler_config(GCS) == {"cluster_name": "mine"}
    assert autoscaler_config("10.9.0.3:6379") is None


def manifest() -> dict[str, Any]:
    """Return the RayCluster that the operator makes of the shipped manifest."""
    job = yaml.safe_load((REPOSITORY / "scripts" / "kuberay-rayjob.yaml").read_text())
    return {"metadata": {"name": "doppel-ray-x", "namespace": "lab"}, "spec": job["spec"]["rayClusterSpec"]}


def test_cluster_of_kubernetes_counts_as_what_it_may_grow_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head has no CPUs, and its groups begin with no pod."""
    asked = []

    def get(client: KubernetesHttpApiClient, path: str) -> dict[str, Any]:
        asked.append(path)
        return manifest()

    monkeypatch.setattr(KubernetesHttpApiClient, "get", get)
    monkeypatch.setattr(growth, "KUBERNETES", tmp_path / "namespace")
    monkeypatch.setenv("RAY_CLUSTER_NAME", "doppel-ray-x")
    assert autoscaler_config(GCS) is None, "outside Kubernetes nobody is asked"
    growth.KUBERNETES.write_text("lab")
    config = autoscaler_config(GCS)
    assert asked == ["rayclusters/doppel-ray-x"]
    assert config is not None
    found = autoscaler_nodes(config, (HEAD,), Experiment())
    assert Counter(found) == {Node("cpu", 8.0, 0.0): 16, Node("gpu", 8.0, 1.0): 4}
    assert plan_trial(Experiment(), (HEAD, *found)).concurrent > 0


def kinds(limit: int) -> dict[str, Any]:
    """Return a cluster whose kinds' maxima exceed the global one, GPUs first."""
    types = {
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 16},
        "also_cpu": {"resources": {"CPU": 16}, "max_workers": 2},
    }
    return {"available_node_types": types, "max_workers": limit}


@pytest.mark.parametrize(("gpus", "settings"), [(0, {}), (4, {"train.gpus_per_worker": "1", "train.workers": "4"})])
def test_cut_leaves_what_a_trial_needs(gpus: int, settings: dict[str, str]) -> None:
    """The order of the file decides nothing."""
    generators = {"generators.0.actors": "60", "generators.0.num_cpus": "1", "train.batch_size": "64"}
    trial = read_experiment(None, {**generators, **settings, "tune.concurrent": "1"})
    found = autoscaler_nodes(kinds(limit=8), (HEAD,), trial)
    assert len(found) == 8
    assert sum(node.gpus for node in found) >= gpus
    assert plan_trial(trial, (HEAD, *found)).concurrent == 1


def test_node_counts_against_one_kind() -> None:
    found = autoscaler_nodes(kinds(limit=100), (HEAD, Node("10.9.0.3", 16.0, 0.0)), Experiment())
    assert len(found) == 25
