"""A cluster that has shrunk until running trials no longer fit: what lacks, which nodes are gone, how to mend it."""

import time
from collections import Counter
from collections.abc import Sequence

from doppel_ray.cluster import ray_env
from doppel_ray.cluster.nodes import growth, living_nodes
from doppel_ray.cluster.plan import Node, plan_trial
from doppel_ray.config.experiment import Experiment
from doppel_ray.config.train import START_ATTEMPTS
from doppel_ray.core.errors import ConfigError

EVERY = 10.0
"""Seconds between two looks at the cluster."""
PATIENCE = 60.0
"""Seconds that a shortage may last before it is told: a node that was restarted is back within them."""
WAIT = START_ATTEMPTS * float(ray_env.SETTINGS["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"])
"""Seconds that a trial waits for room for its train workers before it fails."""


class CapacityMonitor:
    """Looks now and then whether the running trials still fit the nodes that are there.

    Args:
        experiment: as plain data.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.had: Counter[str] = Counter()
        """Nodes by address, as many as there ever were at once."""
        self.looked, self.since = -EVERY, 0.0
        self.short, self.told = False, False

    def news(self, running: Sequence[str]) -> str | None:
        """What the user should know now; None if that is nothing, or nothing new.

        Args:
            running: names of the trials under way.
        """
        now = time.monotonic()
        if now - self.looked < EVERY:
            return None
        self.looked = now
        living = living_nodes()
        self.had |= Counter(node.name for node in living)
        lacking = self._lacking((*living, *growth(living)), running)
        if lacking is None:
            back, self.short, self.told = self.told, False, False
            return "the cluster has room for the running trials again; they go on" if back else None
        if not self.short:
            self.short, self.since = True, now
        if self.told or now - self.since < PATIENCE:
            return None
        self.told = True
        gone = self.had - Counter(node.name for node in living)
        return explain(lacking, gone, running)

    def _lacking(self, nodes: tuple[Node, ...], running: Sequence[str]) -> str | None:
        """Why the running trials do not fit the nodes; None if they do."""
        if not running:
            return None
        try:
            plan = plan_trial(self.experiment, nodes, len(running))
        except ConfigError as error:
            return str(error)
        if plan.concurrent >= len(running):
            return None
        return "\n".join([f"of {len(running)} running trials {plan.concurrent} fit this cluster", *plan.lines()])


def explain(lacking: str, gone: Counter[str], running: Sequence[str]) -> str:
    """The message.

    Args:
        lacking: why they do not fit.
        gone: nodes that were there, by address.
        running: the trials that wait, or will.
    """
    lost = ", ".join(f"{address} ({count} nodes)" if count > 1 else address for address, count in sorted(gone.items()))
    return (
        f"{lacking}\n  gone: {lost or 'no node; those there are have less'}\n  held up: {', '.join(running)}\n"
        "  start Ray there again (`ray up`, or on the node `ray start --address HEAD:6379`), or add a node: "
        f"within {WAIT / 60:.0f} minutes they go on by themselves from their last checkpoints, later with --resume"
    )
