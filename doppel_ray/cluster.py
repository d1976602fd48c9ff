"""Joining a running Ray cluster, or starting a local one."""

import logging
import os
import socket
from pathlib import Path
from typing import Any

import ray

from doppel_ray.resources import Node
from doppel_ray.section import ConfigError


def local_node() -> tuple[Node, ...]:
    """What a local Ray will have, without starting it: enough to refuse a plan before anything starts."""
    import torch

    return (Node("this machine", float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count())),)


def address() -> str | None:
    """Address of the cluster to join: RAY_ADDRESS, or that of a Ray that `ray start` has started on this machine."""
    if asked := os.environ.get("RAY_ADDRESS"):
        return None if asked == "local" else asked
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    found = file.read_text().strip() if file.exists() else ""
    return found if found and _answers(found) else None


def _answers(found: str) -> bool:
    """Whether something listens there: `ray start` leaves its address behind when it is killed."""
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def log_to(file: Path) -> None:
    """Send what Ray's libraries say in this process to a file, away from the terminal."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ray")
    logger.handlers = [handler]
    logger.propagate = False


def connect() -> tuple[tuple[Node, ...], str]:
    """Join a running cluster if there is one, else start Ray on this machine, listening on loopback alone.

    Returns:
        The cluster's nodes, and a sentence that says which cluster it is.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    # Logging as the caller has set it up: see `log_to`.
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    joined = address()
    if joined is not None:
        try:
            ray.init(address=joined, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise ConfigError(
                f"the Ray cluster at {joined} does not answer: {str(error).splitlines()[0]}\n"
                "start it again, or unset RAY_ADDRESS (and run `ray stop`) to use this machine alone"
            ) from None
        where = f"joined the Ray cluster at {joined}"
    else:
        node = local_node()[0]
        ray.init(
            address="local",
            num_cpus=int(node.cpus),
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            **quiet,
        )
        where = "started Ray on this machine"
    return nodes(), where


def nodes() -> tuple[Node, ...]:
    """The living nodes of the connected cluster, with all that each has."""
    return tuple(
        Node(node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    )


def disconnect() -> None:
    """Leave the cluster; a Ray that `connect` started ends with it."""
    ray.shutdown()
