"""How many train workers a trial trains with, where a range is allowed: as many as there is room for.

The batch stays what it is over all of them, and the stream hands out the same batches whatever their number, so that a
trial which goes on with fewer, or more, computes what it would have computed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed

from doppel_ray.cluster.nodes import answering_nodes, free_nodes
from doppel_ray.cluster.plan import count_that_fit, most_workers, train_workers

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment


@dataclass(frozen=True)
class WorkerScaling:
    """What a trial may count on.

    Attributes:
        side_by_side: trials that run at once, each of which may have as much.
        grows: whether an autoscaler may add nodes, if only it is asked to.
    """

    side_by_side: int = 1
    grows: bool = False

    def workers(self, experiment: "Experiment", below: int | None = None) -> int:
        """Train workers to start with now; the fewest that are allowed if there is no room even for them.

        Args:
            experiment: of the trial.
            below: as many have just been tried, and did not find room.
        """
        counts = tuple(count for count in experiment.train.worker_counts if below is None or count < below)
        fewest = experiment.train.worker_counts[-1]
        if not experiment.train.elastic:
            return fewest
        if self.grows and below is None:  # who asks for the most, is given nodes for the most
            return counts[0]
        return most_workers(experiment, answering_nodes(), self.side_by_side, counts) or fewest

    def more(self, experiment: "Experiment", workers: int) -> int | None:
        """With how many train workers a running trial could go on instead; None: with no more than it has.

        Args:
            experiment: of the trial.
            workers: that it has.
        """
        left = free_nodes()  # what fits the cluster may be in others' hands
        counts = tuple(
            count
            for count in experiment.train.worker_counts
            if count > workers and count_that_fit((train_workers(experiment, count - workers),), left, 1)
        )
        return most_workers(experiment, answering_nodes(), self.side_by_side, counts)


ALONE = WorkerScaling()
"""What a trial on its own may count on."""


def agreed(count: int | None, workers: int, device: torch.device) -> int | None:
    """What the first train worker has found, as all of them are to know it; every one must take part.

    Args:
        count: what this one has found.
        workers: how many there are.
        device: where their process group takes tensors.
    """
    told = torch.tensor(count or 0, device=device)
    if workers > 1:
        torch.distributed.broadcast(told, src=0)
    return int(told) or None
