"""What a cloud announces of the node that a process runs on: that it is about to be taken away."""

import json
import logging
import threading
import time
import urllib.error
import urllib.request

log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds between two looks at the cloud's metadata, as AWS advises; its notices come two minutes ahead."""


class Ec2SpotNotices:
    """Asks EC2's metadata service, which only the instance itself reaches, whether the instance is about to be taken.

    As documented in "Spot Instance interruption notices" of the EC2 user guide: `spot/instance-action` is not found
    until there is a notice, then `{"action": "terminate", "time": "2026-09-18T08:22:00Z"}`. Every request shows a token
    that the service gives out for a while (IMDSv2).

    Args:
        address: of the service, without a path.
    """

    TOKEN_SECONDS = 21600

    def __init__(self, address: str) -> None:
        self.address = address

    def notice(self) -> str | None:
        """What AWS announces; None if nothing.

        Raises:
            OSError: the service does not answer.
        """
        asked = {"X-aws-ec2-metadata-token-ttl-seconds": str(self.TOKEN_SECONDS)}
        token = self._answer("PUT", "/latest/api/token", asked)
        try:
            told = self._answer("GET", "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        about = json.loads(told)
        return f"AWS will {about['action']} this node at {about['time']}"

    def _answer(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self.address + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=POLL) as answer:
            return answer.read().decode()


class Watch:
    """Looks for a notice every few seconds, in a thread of its own.

    Args:
        cloud: which to ask.
    """

    def __init__(self, cloud: Ec2SpotNotices) -> None:
        self.cloud = cloud
        self.notice: str | None = None
        """What has been announced."""
        threading.Thread(target=self._look, daemon=True, name="notices").start()

    def _look(self) -> None:
        answers = True
        while self.notice is None:
            try:
                self.notice = self.cloud.notice()
                answers = True
            except (OSError, ValueError, KeyError) as error:
                if answers:
                    log.warning("%s says nothing of spot notices (train.spot): %s", self.cloud.address, error)
                answers = False
            time.sleep(POLL)
