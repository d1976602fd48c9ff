"""Plan which resources a trial needs, and how many trials fit the cluster, before anything starts."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from doppel_ray.config.search import label
from doppel_ray.core.errors import ConfigError

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

DRIVER_CPUS = 0.01
"""CPUs that the plan allows for a trial's own process; it only waits, on the head, and reserves none."""
RESOURCE_KEYS = (
    "train.workers",
    "train.batch_size",
    "train.cpus_per_worker",
    "train.gpus_per_worker",
    "generators",
    "probes.tasks",
    "probes.actors",
    "probes.cpus",
    "probes.gpus",
)
"""Keys that decide what a trial needs; searched, they make trials of different sizes."""
EPSILON = 1e-9
"""Rounding error of sums of resources."""


@dataclass(frozen=True)
class ResourceRequest:
    """Resources that one kind of process of a trial needs.

    Attributes:
        name: the kind, as the plan prints it.
        cpu_key, gpu_key: configuration keys that set `cpus` and `gpus`.
        count: number of processes.
        cpus, gpus: of each process.
        more: number of further processes, if resources are free.
    """

    name: str
    cpu_key: str
    gpu_key: str
    count: int
    cpus: float
    gpus: float
    more: int = 0


@dataclass(frozen=True)
class Node:
    """Resources of one node of the cluster."""

    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name}: {self.cpus:g} CPUs, {self.gpus:g} GPUs"


@dataclass(frozen=True)
class Plan:
    """Resources that a trial needs, and the number of trials that fit side by side."""

    requests: tuple[ResourceRequest, ...]
    nodes: tuple[Node, ...]
    concurrent: int

    @property
    def cpus(self) -> float:
        return sum(request.count * request.cpus for request in self.requests)

    @property
    def gpus(self) -> float:
        return sum(request.count * request.gpus for request in self.requests)

    def lines(self) -> list[str]:
        """Return the plan as printed lines."""
        parts = []
        for request in self.requests:
            each = f"{request.cpus:g} CPU" + (f" + {request.gpus:g} GPU" if request.gpus else "")
            parts.append(
                f"{request.count} {request.name} x {each}"
                + (f" (up to {request.count + request.more})" if request.more else "")
            )
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        found = f"{cpus:g} CPUs, {gpus:g} GPUs on {len(self.nodes)} node{'s'[: len(self.nodes) != 1]}"
        return [
            f"a trial needs {self.cpus:g} CPU{f' + {self.gpus:g} GPU' if self.gpus else ''}: {', '.join(parts)}",
            f"the cluster has {found}: {self.concurrent} trial{'s'[: self.concurrent != 1]} side by side",
        ]


def train_workers(experiment: "Experiment", count: int) -> ResourceRequest:
    """Return the request of `count` train workers."""
    train = experiment.train
    return ResourceRequest(
        "train worker",
        "train.cpus_per_worker",
        "train.gpus_per_worker",
        count,
        train.cpus_per_worker,
        train.gpus_per_worker,
        train.workers[1] - count,
    )


def trial_requests(experiment: "Experiment", workers: int) -> tuple[ResourceRequest, ...]:
    """Return the requests of one trial with this number of train workers."""
    probes = experiment.probes
    asked = [
        ResourceRequest("driver", "", "", 1, DRIVER_CPUS, 0.0),
        train_workers(experiment, workers),
        *(
            ResourceRequest(
                "generator" if len(experiment.generators) == 1 else f"{pool.device} generator",
                f"generators.{number}.num_cpus",
                f"generators.{number}.num_gpus",
                pool.actors[0],
                pool.num_cpus,
                pool.num_gpus,
                pool.actors[1] - pool.actors[0],
            )
            for number, pool in enumerate(experiment.generators)
        ),
    ]
    if probes.tasks:
        alone = probes.actors == 1
        asked.append(
            ResourceRequest("probe", "probes.cpus", "probes.gpus", 1, probes.cpus, probes.gpus if alone else 0.0)
        )
        if not alone:
            asked.append(
                ResourceRequest("probe actor", "probes.cpus", "probes.gpus", probes.actors, probes.cpus, probes.gpus)
            )
    return tuple(asked)


def plan_trial(experiment: "Experiment", nodes: tuple[Node, ...], trials: int = 1) -> Plan:
    """Plan a trial with the largest allowed number of train workers with which `trials` trials fit.

    Where the search changes what a trial needs, returns the plan of those trials of which the fewest fit.

    Args:
        experiment: one point of the search, or all of it.
        nodes: the cluster's nodes, including those its autoscaler may add.
        trials: number of trials to fit side by side.

    Raises:
        ConfigError: a trial of the search does not fit even alone; shows needed and available resources and the
            smallest change that fits.
    """
    plans = (_plan_point(point, values, nodes, trials) for values, point in _points(experiment))
    return min(plans, key=lambda plan: (plan.concurrent, -plan.gpus, -plan.cpus))


def _points(experiment: "Experiment") -> "Iterator[tuple[dict[str, Any], Experiment]]":
    """Yield every combination of the searched values that decide what a trial needs, and its experiment.

    Raises:
        ConfigError: no combination is valid; the error of the first.
    """
    keys = [key for key in experiment.search if key.partition(".")[0] == "generators" or key in RESOURCE_KEYS]
    if not keys:
        yield {}, experiment
        return
    first, valid = None, 0
    for combination in itertools.product(*(experiment.search[key].examples() for key in keys)):
        values = dict(zip(keys, combination, strict=True))
        try:
            point = experiment.with_values(values)
        except ConfigError as error:  # each trial reports its own
            first = first or error
            continue
        valid += 1
        yield values, point
    if not valid and first is not None:
        raise first


def _plan_point(experiment: "Experiment", values: dict[str, Any], nodes: tuple[Node, ...], trials: int) -> Plan:
    """Plan the trials of one point.

    Args:
        experiment: of the point.
        values: those of the search that it has.
        nodes, trials: as for `plan_trial`.

    Raises:
        ConfigError: not even one trial fits.
    """
    counts = experiment.train.worker_counts
    asked = trial_requests(experiment, most_workers(experiment, nodes, trials, counts) or counts[-1])
    limit = experiment.tune.concurrent or max(1, sum(math.ceil(node.cpus) for node in nodes) * 2)
    concurrent = count_that_fit(asked, nodes, limit)
    if concurrent == 0:
        raise ConfigError(_refusal(asked, nodes, values))
    return Plan(asked, nodes, concurrent)


def most_workers(experiment: "Experiment", nodes: tuple[Node, ...], trials: int, counts: tuple[int, ...]) -> int | None:
    """Return the first of `counts` train workers with which `trials` trials fit side by side; None if none does."""
    return next(
        (count for count in counts if count_that_fit(trial_requests(experiment, count), nodes, trials) == trials), None
    )


def count_that_fit(asked: tuple[ResourceRequest, ...], nodes: tuple[Node, ...], limit: int) -> int:
    """Return how many trials can be placed, at most `limit`: each process whole on one node, largest first."""
    free = [_Free(node) for node in nodes]
    pieces = sorted(((request.gpus, request.cpus) for request in asked for _ in range(request.count)), reverse=True)
    for trial in range(limit):
        for gpus, cpus in pieces:
            # Best fit: the fullest node that still takes it, preferably one without GPUs.
            room = [node for node in free if node.takes(cpus, gpus)]
            if not room:
                return trial
            min(room, key=lambda node: (sum(node.gpus), node.cpus)).take(cpus, gpus)
    return limit


class _Free:
    """Free resources of a node, with each GPU on its own: a process gets a share of one GPU, or whole ones."""

    def __init__(self, node: Node) -> None:
        self.cpus = node.cpus
        whole = int(node.gpus + EPSILON)
        self.gpus = [1.0] * whole + [part for part in (node.gpus - whole,) if part > EPSILON]

    def takes(self, cpus: float, gpus: float) -> bool:
        """Return whether there is room for a process."""
        if self.cpus < cpus - EPSILON:
            return False
        if gpus > 1:
            return sum(free >= 1 - EPSILON for free in self.gpus) >= gpus
        return gpus == 0 or any(free >= gpus - EPSILON for free in self.gpus)

    def take(self, cpus: float, gpus: float) -> None:
        """Give a process its resources, the share of a GPU from the fullest that has it, as Ray does."""
        self.cpus -= cpus
        share = min(gpus, 1.0)
        for _ in range(max(1, int(gpus)) if gpus else 0):
            at = min((at for at, free in enumerate(self.gpus) if free >= share - EPSILON), key=self.gpus.__getitem__)
            self.gpus[at] -= share


def _refusal(asked: tuple[ResourceRequest, ...], nodes: tuple[Node, ...], values: dict[str, Any]) -> str:
    made = Plan(asked, nodes, 0)
    point = f" with {', '.join(f'{key} {label(value)}' for key, value in values.items())} (search)" if values else ""
    lines = [f"no trial{point} fits this cluster", *(f"  {line}" for line in made.lines())]
    largest_cpus = max((node.cpus for node in nodes), default=0.0)
    largest_gpus = max((node.gpus for node in nodes), default=0.0)
    for request in asked:
        if request.gpus > largest_gpus:
            lines.append(f"  {request.gpu_key} is {request.gpus:g}, but the largest node has {largest_gpus:g} GPUs")
        if request.cpus > largest_cpus:
            lines.append(f"  {request.cpu_key} is {request.cpus:g}, but the largest node has {largest_cpus:g} CPUs")
    return "\n".join([*lines, f"  {_smallest_change(asked, nodes)}"])


def _smallest_change(asked: tuple[ResourceRequest, ...], nodes: tuple[Node, ...]) -> str:
    """Return the smallest reduction of one setting that makes a trial fit, or what the cluster lacks."""
    for k, request in sorted(enumerate(asked), key=lambda item: -item[1].count * item[1].cpus):
        if not request.cpu_key:
            continue
        halves = [n / 2 for n in range(int(request.cpus * 2), 0, -1)] + [0.25, 0.1]
        for cpus in halves:
            if cpus >= request.cpus:
                continue
            smaller = replace(request, cpus=cpus)
            if count_that_fit((*asked[:k], smaller, *asked[k + 1 :]), nodes, 1):
                return f"the smallest change that fits: --{request.cpu_key} {cpus:g}"
    missing_cpus = sum(request.count * request.cpus for request in asked) - sum(node.cpus for node in nodes)
    missing_gpus = sum(request.count * request.gpus for request in asked) - sum(node.gpus for node in nodes)
    wants = [
        f"{max(missing, 0):g} more {kind}"
        for missing, kind in ((missing_cpus, "CPUs"), (missing_gpus, "GPUs"))
        if missing > 0
    ]
    return f"no single setting makes it fit; the cluster lacks {' and '.join(wants) or 'a node that is large enough'}"
