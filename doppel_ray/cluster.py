"""Joining a running Ray cluster, or starting a local one."""

import contextlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from doppel_ray.environment import address, answers
from doppel_ray.resources import Node
from doppel_ray.section import ConfigError

T = TypeVar("T")

ANSWER_SECONDS = 300
"""Seconds that a node has to answer what it is asked; it takes a few where a process of Ray's is ready."""
BOOTSTRAP = "ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's configuration, in the user's home on the head; JSON in fact."""


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
        living = nodes()
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
    return nodes(), "started Ray on this machine"


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
    if len(nodes()) == 1:
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


def nodes() -> tuple[Node, ...]:
    """The living nodes of the connected cluster, with all that each has."""
    return tuple(_described(node, node["Resources"]) for node in ray.nodes() if node["Alive"])


def answering() -> tuple[Node, ...]:
    """The nodes whose Ray takes a connection now: that one is gone Ray itself notices after half a minute."""
    return tuple(
        _described(node, node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and answers(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    )


def free() -> tuple[Node, ...]:
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


def disconnect() -> None:
    """Leave the cluster; a Ray that `connect` started ends with it."""
    ray.shutdown()
