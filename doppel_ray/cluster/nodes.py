"""The nodes of the cluster: what they have, what they have left, and what they answer."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from doppel_ray.cluster.plan import Node
from doppel_ray.cluster.ray_compat import available_resources_per_node
from doppel_ray.cluster.ray_env import answers
from doppel_ray.core.errors import ConfigError

T = TypeVar("T")
ANSWER_SECONDS = 300
"""Seconds that a node has to answer what it is asked; it takes a few where a process of Ray's is ready."""
BOOTSTRAP = "ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's configuration, in the user's home on the head; JSON in fact."""


def local_node() -> tuple[Node, ...]:
    """What a local Ray will have, without starting it: enough to refuse a plan before anything starts."""
    import torch

    return (Node("this machine", float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count())),)


def _installed() -> Callable[[], dict[str, str]]:
    """Tells what a machine has installed: a function within one travels whole, to where this module may be another."""

    def installed() -> dict[str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import platform

        found = {"Python": platform.python_version()}
        for package in ("ray", "torch"):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "missing"
        spec = importlib.util.find_spec("doppel_ray")
        if spec is None or spec.origin is None:
            return found | {"doppel_ray": "missing"}
        code = hashlib.sha256()
        folder = pathlib.Path(spec.origin).parent
        for file in sorted(folder.rglob("*.py")):
            code.update(str(file.relative_to(folder)).encode() + file.read_bytes())
        return found | {"doppel_ray": f"code {code.hexdigest()[:8]}"}

    return installed


def check_versions() -> None:
    """Ask every living node what it has installed. A node that joins later is set up as these are.

    Raises:
        ConfigError: one has other versions than this machine, or does not answer; the message names it.
    """
    installed = _installed()
    here, faults = installed(), []
    for node, there in ask_nodes(installed):
        if isinstance(there, Exception):
            faults.append(f"{node} cannot be asked: {str(there).splitlines()[0]}")
        elif wrong := [
            f"{name} {there[name]} (here: {version})" for name, version in here.items() if there[name] != version
        ]:
            faults.append(f"{node} has {', '.join(wrong)}")
    if faults:
        raise ConfigError(
            "the cluster's nodes must run the same code as this machine\n"
            + "".join(f"  {fault}\n" for fault in sorted(set(faults)))
            + "`ray up` again copies this project to every node and starts Ray anew; or, on the nodes named, "
            "`pip install -e` this project, `ray stop`, and `ray start` as before"
        )


def check_seen(file: Path) -> None:
    """Refuse a file of this machine's that another node of the connected cluster does not see.

    A node that does not answer, or comes later, is not judged.

    Raises:
        ConfigError: names the nodes.
    """
    if len(living_nodes()) == 1:
        return
    blind = [node for node, seen in ask_nodes(Path.is_file, file) if seen is False]
    if blind:
        raise ConfigError(
            f"run.dir: {file.parent} is not seen by {', '.join(sorted(blind))}; "
            "choose a --run.dir on a file system that all nodes share, at the same path"
        )


def ask_nodes(question: Callable[..., T], *given: Any) -> list[tuple[str, T | Exception]]:
    """The address of every living node, and what a function gives there; an error: it gave none in time."""
    living, ask = [node for node in ray.nodes() if node["Alive"]], ray.remote(question)
    asked = [
        ask.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(*given)
        for node in living
    ]
    ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    return [(node["NodeManagerAddress"], _answer(reference)) for node, reference in zip(living, asked, strict=True)]


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return TimeoutError(f"no answer within {ANSWER_SECONDS} s")
    except ray.exceptions.RayError as error:
        return error


def living_nodes() -> tuple[Node, ...]:
    """The living nodes of the connected cluster, with all that each has."""
    return tuple(_described(node, node["Resources"]) for node in ray.nodes() if node["Alive"])


def answering_nodes() -> tuple[Node, ...]:
    """The nodes whose Ray takes a connection now: that one is gone Ray itself notices after half a minute."""
    return tuple(
        _described(node, node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and answers(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    )


def free_nodes() -> tuple[Node, ...]:
    """The living nodes, with what each has left."""
    left = available_resources_per_node()
    return tuple(
        _described(node, found)
        for node in ray.nodes()
        if node["Alive"] and (found := left.get(node["NodeID"])) is not None
    )


def _described(node: dict[str, Any], resources: dict[str, float]) -> Node:
    return Node(node["NodeManagerAddress"], resources.get("CPU", 0.0), resources.get("GPU", 0.0))


def growth(living: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes that the connected cluster's autoscaler may add to the living ones; none where there is none."""
    file = Path.home() / BOOTSTRAP
    return to_come(json.loads(file.read_text()), living) if file.exists() else ()


def to_come(config: dict[str, Any], living: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes that the autoscaler may add to the living ones.

    Args:
        config: what `ray up` has told the head: each kind of node with its resources and how many there may be.
        living: nodes that are up; each counts against the kind that has as many CPUs and GPUs.
    """
    up = Counter((node.cpus, node.gpus) for node in living)
    found: list[Node] = []
    for kind, node_type in config["available_node_types"].items():
        cpus, gpus = (float(node_type["resources"].get(name, 0)) for name in ("CPU", "GPU"))
        if cpus:  # one's own machines, all of which are up, say nothing of theirs
            found += [Node(kind, cpus, gpus)] * (node_type.get("max_workers", 0) - up[cpus, gpus])
    return tuple(found[: max(0, config["max_workers"] - (len(living) - 1))])
