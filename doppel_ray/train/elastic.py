"""How many train workers a trial trains with, where `train.workers` is a range: as many as there is room for.

The batch over all workers keeps its size, and the stream gives the same batches to any number of workers. So a trial
that continues with fewer or more workers computes the same as before.
"""

from dataclasses import dataclass

import torch
import torch.distributed

from doppel_ray.cluster.nodes import answering_nodes, free_nodes
from doppel_ray.cluster.plan import count_that_fit, most_workers, train_workers
from doppel_ray.config.experiment import Experiment


@dataclass(frozen=True)
class WorkerScaling:
    """The part of the cluster that one trial may use.

    Attributes:
        side_by_side: trials that run at once, each of which may use as much.
        grows: whether an autoscaler adds nodes on request.
    """

    side_by_side: int = 1
    grows: bool = False

    def workers(self, experiment: Experiment, below: int | None = None) -> int:
        """Return the number of train workers to start with; the fewest allowed if there is no room even for them.

        Args:
            experiment: of the trial.
            below: a number that has just found no room.
        """
        counts = tuple(count for count in experiment.train.worker_counts if below is None or count < below)
        fewest = experiment.train.worker_counts[-1]
        if not experiment.train.elastic:
            return fewest
        if self.grows and below is None:  # the autoscaler adds nodes for what is asked of it
            return counts[0]
        return most_workers(experiment, answering_nodes(), self.side_by_side, counts) or fewest

    def more(self, experiment: Experiment, workers: int) -> int | None:
        """Return a larger number of train workers that a running trial has room for, or None.

        Args:
            experiment: of the trial.
            workers: its present number.
        """
        free = free_nodes()  # other jobs may use what would fit the cluster
        counts = tuple(
            count
            for count in experiment.train.worker_counts
            if count > workers and count_that_fit((train_workers(experiment, count - workers),), free, 1)
        )
        return most_workers(experiment, answering_nodes(), self.side_by_side, counts)


def broadcast_count(count: int | None, workers: int, device: torch.device) -> int | None:
    """Return the first train worker's count on every worker; every worker must take part.

    Args:
        count: this worker's.
        workers: how many there are.
        device: where their process group takes tensors.
    """
    shared = torch.tensor(count or 0, device=device)
    if workers > 1:
        torch.distributed.broadcast(shared, src=0)
    return int(shared) or None
