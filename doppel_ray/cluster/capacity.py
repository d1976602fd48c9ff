"""Report when the cluster has become too small for the running trials: what is missing, and which nodes are gone."""

import math
import time
from collections import Counter
from collections.abc import Sequence

from doppel_ray.cluster.growth import possible_nodes
from doppel_ray.cluster.nodes import living_nodes
from doppel_ray.cluster.plan import Node, plan_trial
from doppel_ray.config.experiment import Experiment
from doppel_ray.core.errors import ConfigError

CHECK_SECONDS = 10.0
"""Seconds between two checks of the cluster."""
GRACE_SECONDS = 60.0
"""Seconds that a shortage lasts before it is reported: enough for a node to restart."""


class CapacityMonitor:
    """Check regularly whether the running trials still fit the living nodes."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.had: Counter[str] = Counter()
        """Address -> largest number of nodes seen there at once."""
        self.checked, self.since = -CHECK_SECONDS, 0.0
        self.short, self.reported = False, False

    def notice(self, running: Sequence[str]) -> str | None:
        """Return a message for the user when a shortage begins or ends, else None.

        Args:
            running: names of the running trials.
        """
        now = time.monotonic()
        if now - self.checked < CHECK_SECONDS:
            return None
        self.checked = now
        living = living_nodes()
        self.had |= Counter(node.name for node in living)
        shortage = self._shortage((*living, *possible_nodes(living, self.experiment)), running)
        if shortage is None:
            over, self.short, self.reported = self.reported, False, False
            return "the cluster has room for the running trials again; they continue" if over else None
        if not self.short:
            self.short, self.since = True, now
        if self.reported or now - self.since < GRACE_SECONDS:
            return None
        self.reported = True
        gone = self.had - Counter(node.name for node in living)
        return explain(shortage, gone, running, self.experiment.train.start_timeout)

    def _shortage(self, nodes: tuple[Node, ...], running: Sequence[str]) -> str | None:
        """Return why the running trials do not fit the nodes; None if they fit."""
        if not running:
            return None
        try:
            plan = plan_trial(self.experiment, nodes, len(running))
        except ConfigError as error:
            return str(error)
        if plan.concurrent >= len(running):
            return None
        return "\n".join([f"{plan.concurrent} of {len(running)} running trials fit this cluster", *plan.lines()])


def explain(shortage: str, gone: Counter[str], running: Sequence[str], patience: float) -> str:
    """Return the message about a shortage.

    Args:
        shortage: why the trials do not fit.
        gone: address -> number of nodes lost there.
        running: names of the trials that are affected.
        patience: seconds that they wait for train workers (train.start_timeout).
    """
    lost = ", ".join(f"{address} ({count} nodes)" if count > 1 else address for address, count in sorted(gone.items()))
    return (
        f"{shortage}\n  lost nodes: {lost or 'none, but nodes have fewer resources'}\n"
        f"  waiting trials: {', '.join(running)}\n"
        "  restart Ray on the node (`ray up`, or there `ray start --address HEAD:6379`), or add a node: within "
        f"{math.ceil(patience / 60)} minutes (train.start_timeout) the trials "
        "continue from their last checkpoints, after that use --resume"
    )
