"""The plan of a trial, held against the cluster that is really there before anything starts."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from doppel_ray.core.errors import ConfigError

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

DRIVER_CPUS = 0.01
"""CPUs of a trial's own process, which only waits."""


@dataclass(frozen=True)
class Share:
    """What one kind of process of a trial needs.

    Attributes:
        name: which kind, as the plan prints it.
        key: the configuration key that asks for the CPUs, and for the GPUs, of one.
        count: how many.
        cpus, gpus: of each.
        more: how many more there may be, if there is room.
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
    """What one node of the cluster has in all."""

    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name}: {self.cpus:g} CPUs, {self.gpus:g} GPUs"


@dataclass(frozen=True)
class Plan:
    """What a trial needs, and how many trials fit side by side."""

    shares: tuple[Share, ...]
    nodes: tuple[Node, ...]
    concurrent: int

    @property
    def cpus(self) -> float:
        return sum(share.count * share.cpus for share in self.shares)

    @property
    def gpus(self) -> float:
        return sum(share.count * share.gpus for share in self.shares)

    def lines(self) -> list[str]:
        """The plan as it is printed."""
        parts = []
        for share in self.shares:
            each = f"{share.cpus:g} CPU" + (f" + {share.gpus:g} GPU" if share.gpus else "")
            parts.append(
                f"{share.count} {share.name} x {each}" + (f" (up to {share.count + share.more})" if share.more else "")
            )
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        found = f"{cpus:g} CPUs, {gpus:g} GPUs on {len(self.nodes)} node{'s'[: len(self.nodes) != 1]}"
        return [
            f"a trial needs {self.cpus:g} CPU{f' + {self.gpus:g} GPU' if self.gpus else ''}: {', '.join(parts)}",
            f"the cluster has {found}: {self.concurrent} trial{'s'[: self.concurrent != 1]} side by side",
        ]


def train_workers(experiment: "Experiment", count: int) -> Share:
    """What so many train workers of a trial ask for."""
    train = experiment.train
    return Share(
        "train worker",
        "train.cpus_per_worker",
        "train.gpus_per_worker",
        count,
        train.cpus_per_worker,
        train.gpus_per_worker,
        train.workers[1] - count,
    )


def shares(experiment: "Experiment", workers: int) -> tuple[Share, ...]:
    """What one trial with so many train workers asks for."""
    probes = experiment.probes
    asked = [
        Share("driver", "", "", 1, DRIVER_CPUS, 0.0),
        train_workers(experiment, workers),
        *(
            Share(
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
        asked.append(Share("probe", "probes.cpus", "probes.gpus", 1, probes.cpus, probes.gpus if alone else 0.0))
        if not alone:
            asked.append(Share("probe actor", "probes.cpus", "probes.gpus", probes.actors, probes.cpus, probes.gpus))
    return tuple(asked)


def plan_trial(experiment: "Experiment", nodes: tuple[Node, ...], trials: int = 1) -> Plan:
    """Hold a trial against the nodes: with the most train workers of those allowed that leave room for the others.

    Args:
        experiment: one point of the search.
        nodes: the cluster's nodes, or for a cluster that grows those that it may grow to.
        trials: that should fit side by side.

    Raises:
        ConfigError: not even one trial fits; the message shows asked, found, and the smallest change that would fit.
    """
    counts = experiment.train.worker_counts
    asked = shares(experiment, most_workers(experiment, nodes, trials, counts) or counts[-1])
    limit = experiment.tune.concurrent or max(1, sum(math.ceil(node.cpus) for node in nodes) * 2)
    concurrent = fitting(asked, nodes, limit)
    if concurrent == 0:
        raise ConfigError(_refusal(asked, nodes))
    return Plan(asked, nodes, concurrent)


def most_workers(experiment: "Experiment", nodes: tuple[Node, ...], trials: int, counts: tuple[int, ...]) -> int | None:
    """The first of these numbers of train workers with which so many trials fit side by side; None: none of them."""
    return next((count for count in counts if fitting(shares(experiment, count), nodes, trials) == trials), None)


def fitting(asked: tuple[Share, ...], nodes: tuple[Node, ...], limit: int) -> int:
    """How many trials can be placed, each process whole on one node, largest first."""
    free = [[node.cpus, node.gpus] for node in nodes]
    pieces = sorted(((share.gpus, share.cpus) for share in asked for _ in range(share.count)), reverse=True)
    for trial in range(limit):
        for gpus, cpus in pieces:
            # The fullest node that still takes it, and one without GPUs rather than one with.
            room = [node for node in free if node[0] >= cpus - 1e-9 and node[1] >= gpus - 1e-9]
            if not room:
                return trial
            best = min(room, key=lambda node: (node[1], node[0]))
            best[0] -= cpus
            best[1] -= gpus
    return limit


def _refusal(asked: tuple[Share, ...], nodes: tuple[Node, ...]) -> str:
    made = Plan(asked, nodes, 0)
    lines = ["no trial fits this cluster", *(f"  {line}" for line in made.lines())]
    largest_cpus = max((node.cpus for node in nodes), default=0.0)
    largest_gpus = max((node.gpus for node in nodes), default=0.0)
    for share in asked:
        if share.gpus > largest_gpus:
            lines.append(f"  {share.gpu_key} is {share.gpus:g}, but the largest node has {largest_gpus:g} GPUs")
        if share.cpus > largest_cpus:
            lines.append(f"  {share.cpu_key} is {share.cpus:g}, but the largest node has {largest_cpus:g} CPUs")
    return "\n".join([*lines, f"  {_smallest_change(asked, nodes)}"])


def _smallest_change(asked: tuple[Share, ...], nodes: tuple[Node, ...]) -> str:
    """One setting that makes a trial fit, as near to what was asked as can be; or what the cluster lacks."""
    for k, share in sorted(enumerate(asked), key=lambda item: -item[1].count * item[1].cpus):
        if not share.cpu_key:
            continue
        halves = [n / 2 for n in range(int(share.cpus * 2), 0, -1)] + [0.25, 0.1]
        for cpus in halves:
            if cpus >= share.cpus:
                continue
            smaller = Share(share.name, share.cpu_key, share.gpu_key, share.count, cpus, share.gpus, share.more)
            if fitting((*asked[:k], smaller, *asked[k + 1 :]), nodes, 1):
                return f"the smallest change that fits: --{share.cpu_key} {cpus:g}"
    missing_cpus = sum(share.count * share.cpus for share in asked) - sum(node.cpus for node in nodes)
    missing_gpus = sum(share.count * share.gpus for share in asked) - sum(node.gpus for node in nodes)
    wants = [
        f"{max(missing, 0):g} more {kind}"
        for missing, kind in ((missing_cpus, "CPUs"), (missing_gpus, "GPUs"))
        if missing > 0
    ]
    return f"no single setting makes it fit; the cluster lacks {' and '.join(wants) or 'a node that is large enough'}"
