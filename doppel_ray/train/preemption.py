"""Checkpoints within an epoch: after some minutes, and before a node is taken away."""

import json
import logging
import threading
import time
import urllib.error
import urllib.request

import ray.train
import torch
import torch.distributed

log = logging.getLogger(__name__)

CHECK_STEPS = 10
"""Steps between two exchanges of reasons among the train workers."""
POLL = 5.0
"""Seconds between requests to the cloud's metadata service, as AWS advises; its notices come two minutes ahead."""


class CheckpointTrigger:
    """Decides when a checkpoint within an epoch is due; all train workers decide alike at the same step.

    Args:
        minutes: time between checkpoints; None: no limit.
        cloud: the cloud whose notices count; None: no cloud.
        drains: whether Ray announces the draining of a node.
        device: where the workers' process group takes tensors.
    """

    def __init__(self, minutes: float | None, cloud: "Ec2SpotNotices | None", drains: bool, device: torch.device):
        self.minutes, self.drains, self.device = minutes, drains, device
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.watcher = NoticeWatcher(cloud) if cloud is not None else None
        self.last = time.monotonic()
        self.handled: set[str] = set()
        """Notices that have led to a checkpoint."""

    def due(self, step: int) -> str | None:
        """Return why a checkpoint is due, or None. Every worker must call this at every step.

        Args:
            step: optimizer steps done.
        """
        if step % CHECK_STEPS:
            return None
        reason = self._drain_notice() or self._agreed_reason()
        if reason is not None:
            self.last = time.monotonic()
        return reason

    def _drain_notice(self) -> str | None:
        """Return Ray's announcement, once."""
        info = ray.train.get_preemption_info() if self.drains else None  # the same on all workers
        if info is None:
            return None
        notice = f"Ray drains the node of train worker {', '.join(map(str, info.preempted_ranks))}"
        return notice if self._is_new(notice) else None

    def _agreed_reason(self) -> str | None:
        """Return a reason that any of the workers has by itself."""
        if self.minutes is None and self.watcher is None:
            return None
        late = self.minutes is not None and time.monotonic() - self.last >= 60 * self.minutes
        notice = self.watcher.notice if self.watcher is not None else None
        noticed = notice is not None and self._is_new(notice)
        if noticed:
            log.warning("%s", notice)
        found = torch.tensor([late, (self.rank + 1) * noticed], device=self.device)
        if self.workers > 1:
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        any_late, noticed_by = found.tolist()
        if noticed_by:
            return f"the node of train worker {noticed_by - 1} is about to be taken away (train.spot)"
        return f"{self.minutes:g} minutes have passed (train.checkpoint_minutes)" if any_late else None

    def _is_new(self, notice: str) -> bool:
        known = notice in self.handled
        self.handled.add(notice)
        return not known


class Ec2SpotNotices:
    """Reads the spot interruption notice of the EC2 instance that this process runs on.

    As documented in "Spot Instance interruption notices" of the EC2 user guide: `spot/instance-action` is not found
    until there is a notice, then `{"action": "terminate", "time": "2026-09-18T08:22:00Z"}`. Every request shows a
    short-lived token of the service (IMDSv2).

    Args:
        address: of the metadata service, without a path.
    """

    TOKEN_SECONDS = 21600

    def __init__(self, address: str) -> None:
        self.address = address

    def notice(self) -> str | None:
        """Return what AWS announces, or None.

        Raises:
            OSError: the service does not answer.
        """
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(self.TOKEN_SECONDS)}
        token = self._request("PUT", "/latest/api/token", lifetime)
        try:
            answer = self._request("GET", "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        notice = json.loads(answer)
        return f"AWS will {notice['action']} this node at {notice['time']}"

    def _request(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self.address + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=POLL) as answer:
            return answer.read().decode()


class NoticeWatcher:
    """Polls for a notice in a thread of its own.

    Args:
        cloud: which to ask.
    """

    def __init__(self, cloud: Ec2SpotNotices) -> None:
        self.cloud = cloud
        self.notice: str | None = None
        """The announcement, once there is one."""
        threading.Thread(target=self._poll, daemon=True, name="notices").start()

    def _poll(self) -> None:
        answered = True
        while self.notice is None:
            try:
                self.notice = self.cloud.notice()
                answered = True
            except (OSError, ValueError, KeyError) as error:
                if answered:
                    log.warning("%s gives no spot notices (train.spot): %s", self.cloud.address, error)
                answered = False
            time.sleep(POLL)
