"""Checkpoints before an epoch has ended: every so many minutes, and when a node is about to be taken away."""

import logging
import time

import ray.train
import torch
import torch.distributed

from doppel_ray.train.notices import Ec2SpotNotices, Watch

log = logging.getLogger(__name__)

EVERY = 10
"""Steps between two times that the workers ask each other whether one of them has a reason."""


class CheckpointTrigger:
    """Whether a checkpoint is due: all train workers come to the same answer at the same step.

    Args:
        minutes: after which the next checkpoint is due; None: never for that reason.
        cloud: whose notices count; None: nobody's.
        drains: whether Ray says it when a node is to be drained.
        device: where the workers' process group takes tensors.
    """

    def __init__(self, minutes: float | None, cloud: Ec2SpotNotices | None, drains: bool, device: torch.device) -> None:
        self.minutes, self.drains, self.device = minutes, drains, device
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.watch = Watch(cloud) if cloud is not None else None
        self.since = time.monotonic()
        self.heeded: set[str] = set()
        """Notices that have led to a checkpoint."""

    def reason(self, step: int) -> str | None:
        """Why a checkpoint is due now; None if it is not. Every worker must take part at every step.

        Args:
            step: steps done.
        """
        if step % EVERY:
            return None
        found = self._drained() or self._agreed()
        if found is not None:
            self.since = time.monotonic()
        return found

    def _drained(self) -> str | None:
        """What Ray has announced, once."""
        told = ray.train.get_preemption_info() if self.drains else None  # which Ray has all workers agree on
        if told is None:
            return None
        notice = f"Ray drains the node of train worker {', '.join(map(str, told.preempted_ranks))}"
        fresh = notice not in self.heeded
        self.heeded.add(notice)
        return notice if fresh else None

    def _agreed(self) -> str | None:
        """A reason that one of the workers has by itself."""
        if self.minutes is None and self.watch is None:
            return None
        late = self.minutes is not None and time.monotonic() - self.since >= 60 * self.minutes
        notice = self.watch.notice if self.watch is not None else None
        fresh = notice is not None and notice not in self.heeded
        mine = torch.tensor([late, (self.rank + 1) * fresh], device=self.device)
        if self.workers > 1:
            torch.distributed.all_reduce(mine, torch.distributed.ReduceOp.MAX)
        if notice is not None and fresh:
            log.warning("%s", notice)
            self.heeded.add(notice)
        any_late, whose = mine.tolist()
        if whose:
            return f"the node of train worker {whose - 1} is about to be taken away (train.spot)"
        return f"{self.minutes:g} minutes have passed (train.checkpoint_minutes)" if any_late else None
