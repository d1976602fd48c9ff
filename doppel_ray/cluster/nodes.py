"""The nodes of the cluster: their resources, the free part of them, and function calls on each node."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from doppel_ray.cluster.plan import Node
from doppel_ray.cluster.ray_compat import available_resources_per_node
from doppel_ray.cluster.ray_env import is_listening
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.process import available_cpus

T = TypeVar("T")
ANSWER_SECONDS = 300
"""Seconds that a call on a node may take; a few where a Ray process is idle."""
HEAD = "node:__internal_head__"
"""Resource that Ray gives to the head node of every cluster, and to no other: 1."""


def local_node() -> tuple[Node, ...]:
    """Return the resources that a local Ray would have, without starting it."""
    import torch

    return (Node("this machine", float(available_cpus()), float(torch.cuda.device_count())),)


def installed_here() -> Callable[[], dict[str, str]]:
    """Return a function that lists what a machine has installed.

    Ray sends a nested function by value, so that it runs on nodes with another version of this module.
    """

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


def versions_that_differ(found: dict[str, str], here: dict[str, str]) -> list[str]:
    """Return what another machine has installed differently, each beside what is installed here."""
    return [f"{name} {found[name]} (here: {version})" for name, version in here.items() if found[name] != version]


def check_versions() -> None:
    """Check that every living node runs the same versions and code as this machine.

    Raises:
        ConfigError: a node has other versions or does not answer; the message names it.
    """
    installed = installed_here()
    here, faults = installed(), []
    for node, found in call_on_nodes(installed):
        if isinstance(found, Exception):
            faults.append(f"{node} does not answer: {str(found).splitlines()[0]}")
        elif wrong := versions_that_differ(found, here):
            faults.append(f"{node} has {', '.join(wrong)}")
    if faults:
        raise ConfigError(
            "the cluster's nodes must run the same code as this machine\n"
            + "".join(f"  {fault}\n" for fault in sorted(set(faults)))
            + "run `ray up` again, which copies this project to every node and restarts Ray; or on each of these nodes "
            "`pip install -e` this project, `ray stop`, and `ray start` as before"
        )


def check_visible(file: Path) -> None:
    """Check that every node of the connected cluster can read a file of this machine.

    Skips nodes that do not answer; `JoinedNodes` asks those that join later.

    Raises:
        ConfigError: names the nodes that cannot.
    """
    if len(living_nodes()) == 1:
        return
    missing = [node for node, exists in call_on_nodes(Path.is_file, file) if exists is False]
    if missing:
        raise ConfigError(
            f"run.dir: {file.parent} does not exist on {', '.join(sorted(missing))}; "
            "choose a --run.dir on a file system that all nodes share, at the same path"
        )


def call_on_nodes(function: Callable[..., T], *args: Any) -> list[tuple[str, T | Exception]]:
    """Call a function on every living node; return each node's address and its result, or the error."""
    living, remote = [node for node in ray.nodes() if node["Alive"]], ray.remote(function)
    results = [_start(remote, node["NodeID"], *args) for node in living]
    ray.wait(results, num_returns=len(results), timeout=ANSWER_SECONDS)
    return [(node["NodeManagerAddress"], _result(reference)) for node, reference in zip(living, results, strict=True)]


def call_on_node(node: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function on a node; return the reference to its result."""
    return _start(ray.remote(function), node, *args)


def _start(remote: Any, node: str, *args: Any) -> Any:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return remote.options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote(*args)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return TimeoutError(f"no answer within {ANSWER_SECONDS} s")
    except ray.exceptions.RayError as error:
        return error


def living_nodes() -> tuple[Node, ...]:
    """Return the living nodes of the connected cluster with their total resources."""
    return tuple(_as_node(node, node["Resources"]) for node in ray.nodes() if node["Alive"])


def dead_nodes() -> frozenset[str]:
    """Return the identifiers of the nodes that the connected cluster has lost."""
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])


def answering_nodes() -> tuple[Node, ...]:
    """Return the nodes that accept a connection now; Ray takes about 30 s to mark a lost node dead."""
    return tuple(
        _as_node(node, node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and is_listening(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    )


def free_nodes() -> tuple[Node, ...]:
    """Return the living nodes with their free resources."""
    free = available_resources_per_node()
    return tuple(
        _as_node(node, found)
        for node in ray.nodes()
        if node["Alive"] and (found := free.get(node["NodeID"])) is not None
    )


def _as_node(node: dict[str, Any], resources: dict[str, float]) -> Node:
    return Node(node["NodeManagerAddress"], resources.get("CPU", 0.0), resources.get("GPU", 0.0))
