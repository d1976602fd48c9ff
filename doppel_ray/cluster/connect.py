"""Join a running Ray cluster, or start a local one."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from doppel_ray.cluster.growth import possible_nodes
from doppel_ray.cluster.nodes import check_versions, living_nodes, local_node
from doppel_ray.cluster.plan import Node
from doppel_ray.cluster.ray_env import address
from doppel_ray.config.experiment import Experiment
from doppel_ray.core.errors import ConfigError


@contextlib.contextmanager
def redirect_ray_output(file: Path) -> Iterator[None]:
    """Send what Ray logs and prints in this process to a file instead of the terminal."""
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


def connect(experiment: Experiment) -> tuple[tuple[Node, ...], str]:
    """Join a running cluster if there is one, else start Ray on this machine, listening on loopback only.

    Args:
        experiment: what is to run.

    Returns:
        The cluster's nodes, including those its autoscaler may add, and a sentence that names the cluster.

    Raises:
        ConfigError: the cluster does not answer, refuses the token, or runs other code.
    """
    # The caller has set up logging: see `redirect_ray_output`.
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    joined = address()
    if joined is not None:
        try:
            ray.init(address=joined, **quiet)
        except ray.exceptions.AuthenticationError:
            raise ConfigError(
                f"the Ray cluster at {joined} requires its token: copy ~/.ray/auth_token here from the machine that "
                "ran `ray up`, readable by you alone, or set RAY_AUTH_TOKEN_PATH to its path"
            ) from None
        except (ConnectionError, RuntimeError) as error:
            if "Version mismatch" in str(error):  # the message lists the versions there and here on several lines
                raise ConfigError(
                    f"the Ray cluster at {joined} runs another version. {' '.join(str(error).split())}\n"
                    "install the cluster's version here, or restart the cluster with this one (`ray up`)"
                ) from None
            raise ConfigError(
                f"the Ray cluster at {joined} does not answer: {str(error).splitlines()[0]}\n"
                "restart it, or unset RAY_ADDRESS (and run `ray stop`) to use this machine alone"
            ) from None
        check_versions()
        living = living_nodes()
        possible = possible_nodes(living, experiment)
        grows = f", which may grow by {len(possible)} node{'s'[: len(possible) != 1]}" if possible else ""
        return (*living, *possible), f"joined the Ray cluster at {joined}{grows}"
    node = local_node()[0]
    try:
        ray.init(
            address="local",
            num_cpus=int(node.cpus),
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            # Keep idle processes, which have imported torch, for the next trial.
            _system_config={"idle_worker_killing_time_threshold_ms": 120_000},
            **quiet,
        )
    except Exception as error:  # Ray raises a plain Exception if its daemons do not start in time
        raise ConfigError(f"Ray did not start on this machine: {str(error).splitlines()[0]}") from error
    return living_nodes(), "started Ray on this machine"


def disconnect() -> None:
    """Leave the cluster; stop a Ray that `connect` started."""
    ray.shutdown()
