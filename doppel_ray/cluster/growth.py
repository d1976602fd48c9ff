"""The nodes that a cluster's autoscaler may still add: as `ray up` was told, or a RayCluster on Kubernetes says."""

import functools
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from doppel_ray.cluster.nodes import ANSWER_SECONDS, HEAD, call_on_node
from doppel_ray.cluster.plan import Node, count_that_fit, trial_requests

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

log = logging.getLogger(__name__)

KUBERNETES = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""File in a pod that may ask Kubernetes for the cluster's groups of pods."""


def possible_nodes(living: tuple[Node, ...], experiment: "Experiment") -> tuple[Node, ...]:
    """Return the nodes that the connected cluster's autoscaler may still add; none without an autoscaler.

    Args:
        living: nodes that are up.
        experiment: whose trials decide between kinds of nodes where not all may come.
    """
    config = _config_of(ray.get_runtime_context().gcs_address)
    return () if config is None else autoscaler_nodes(config, living, experiment)


@functools.cache
def _config_of(gcs: str) -> dict[str, Any] | None:
    """Return the configuration of the autoscaler of a cluster, asked of its head; None without an autoscaler."""
    (head,) = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    if head == ray.get_runtime_context().get_node_id():
        return autoscaler_config(gcs)
    try:
        found: dict[str, Any] | None = ray.get(call_on_node(head, autoscaler_config, gcs), timeout=ANSWER_SECONDS)
    except (ray.exceptions.RayError, OSError) as error:
        log.warning("the head does not tell how far the cluster may grow: %s", str(error).splitlines()[0])
        return None
    return found


def autoscaler_config(gcs: str) -> dict[str, Any] | None:
    """Return what this machine's autoscaler for a cluster may add; None if there is none.

    The file is the one that the running autoscaler was started with: another may be left of a cluster that is gone, or
    lie in a home that several heads share.

    Args:
        gcs: HOST:PORT of the cluster.
    """
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended, or is another user's
        if f"--gcs-address={gcs}" not in words:
            continue
        for word in words:
            if word.startswith("--autoscaling-config="):
                file = Path(word.partition("=")[2]).expanduser()
                return dict(json.loads(file.read_text())) if file.is_file() else None
    name = os.environ.get("RAY_CLUSTER_NAME")
    return _kubernetes_config(name) if name and KUBERNETES.is_file() else None


def _kubernetes_config(name: str) -> dict[str, Any] | None:
    """Return the groups of a RayCluster, as its autoscaler reads them; None if Kubernetes does not tell this pod."""
    from doppel_ray.cluster.ray_compat import AutoscalingConfigProducer

    try:
        return dict(AutoscalingConfigProducer(name, KUBERNETES.read_text().strip())())
    except Exception as error:  # of the network, of permissions, of the resource
        log.warning("Kubernetes does not tell how far RayCluster %s may grow: %s", name, error)
        return None


def autoscaler_nodes(config: dict[str, Any], living: tuple[Node, ...], experiment: "Experiment") -> tuple[Node, ...]:
    """Return the nodes that an autoscaler may still add to the living ones.

    Args:
        config: the cluster's configuration: resources and largest number of each node type.
        living: nodes that are up; each counts against one type with the same CPUs and GPUs.
        experiment: as for `possible_nodes`.
    """
    up = Counter((node.cpus, node.gpus) for node in living)
    left: Counter[Node] = Counter()
    for kind, node_type in config["available_node_types"].items():
        cpus, gpus = (float(node_type.get("resources", {}).get(name, 0)) for name in ("CPU", "GPU"))
        if not cpus:  # on-premises node types list no CPUs, and all their nodes are up
            continue
        most = node_type.get("max_workers", 0)
        there = min(up[cpus, gpus], most)
        up[cpus, gpus] -= there
        left[Node(kind, cpus, gpus)] += most - there
    limit = max(0, config["max_workers"] - (len(living) - 1))
    return _within(+left, limit, living, experiment)


def _within(left: Counter[Node], limit: int, living: tuple[Node, ...], experiment: "Experiment") -> tuple[Node, ...]:
    """Return at most `limit` of the nodes: without those, one by one, whose loss leaves room for the most trials.

    Of kinds that are missed equally little, one of the most numerous goes.
    """
    asked = trial_requests(experiment, experiment.train.worker_counts[-1])
    most = experiment.tune.concurrent or left.total()

    def trials_without(node: Node) -> tuple[int, int]:
        rest = left - Counter([node])
        return count_that_fit(asked, (*living, *rest.elements()), most), left[node]

    while left.total() > limit:
        left -= Counter([max(left, key=trials_without)])
    return tuple(left.elements())
