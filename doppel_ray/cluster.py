"""Joining a running Ray cluster, or starting a local one."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from doppel_ray.environment import address
from doppel_ray.resources import Node
from doppel_ray.section import ConfigError


def local_node() -> tuple[Node, ...]:
    """What a local Ray will have, without starting it: enough to refuse a plan before anything starts."""
    import torch

    return (Node("this machine", float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count())),)


@contextlib.contextmanager
def hush(file: Path) -> Iterator[None]:
    """Send what Ray logs and prints in this process to a file, away from the terminal."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ray")
    before, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    with file.open("a", buffering=1) as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            yield
        finally:
            logger.handlers, logger.propagate = before, propagate
            handler.close()


def connect() -> tuple[tuple[Node, ...], str]:
    """Join a running cluster if there is one, else start Ray on this machine, listening on loopback alone.

    Returns:
        The cluster's nodes, and a sentence that says which cluster it is.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    # Logging stays as the caller has set it up: see `hush`.
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
        try:
            ray.init(
                address="local",
                num_cpus=int(node.cpus),
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                # Processes that have imported torch wait for the next trial instead of being started again.
                _system_config={"idle_worker_killing_time_threshold_ms": 120_000},
                **quiet,
            )
        except Exception as error:  # Ray raises a plain Exception where its daemons do not come up in time
            raise ConfigError(f"Ray did not start on this machine: {str(error).splitlines()[0]}") from error
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
