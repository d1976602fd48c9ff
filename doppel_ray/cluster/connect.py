"""Joining a running Ray cluster, or starting a local one."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from doppel_ray.cluster.nodes import check_versions, growth, living_nodes, local_node
from doppel_ray.cluster.plan import Node
from doppel_ray.cluster.ray_env import address
from doppel_ray.core.errors import ConfigError


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
        The cluster's nodes, with those that it may grow by, and a sentence that says which cluster it is.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer, wants another token, or runs other code.
    """
    # Logging stays as the caller has set it up: see `hush`.
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    joined = address()
    if joined is not None:
        try:
            ray.init(address=joined, **quiet)
        except ray.exceptions.AuthenticationError:
            raise ConfigError(
                f"the Ray cluster at {joined} lets in no one without its token: copy ~/.ray/auth_token here from the "
                "machine that ran `ray up`, readable by you alone, or say where it is with RAY_AUTH_TOKEN_PATH"
            ) from None
        except (ConnectionError, RuntimeError) as error:
            if "Version mismatch" in str(error):  # two lines of it say what runs there, two what runs here
                raise ConfigError(
                    f"the Ray cluster at {joined} is of another version. {' '.join(str(error).split())}\n"
                    "install here what the cluster has, or start the cluster again with what is here (`ray up`)"
                ) from None
            raise ConfigError(
                f"the Ray cluster at {joined} does not answer: {str(error).splitlines()[0]}\n"
                "start it again, or unset RAY_ADDRESS (and run `ray stop`) to use this machine alone"
            ) from None
        check_versions()
        living = living_nodes()
        more = growth(living)
        grows = f", which may grow by {len(more)} node{'s'[: len(more) != 1]}" if more else ""
        return (*living, *more), f"joined the Ray cluster at {joined}{grows}"
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
    return living_nodes(), "started Ray on this machine"


def disconnect() -> None:
    """Leave the cluster; a Ray that `connect` started ends with it."""
    ray.shutdown()
