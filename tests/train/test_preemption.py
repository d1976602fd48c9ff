"""Spot notices, read from a metadata service on loopback."""

import logging

import pytest

from doppel_ray.train import preemption
from doppel_ray.train.preemption import Ec2SpotNotices, NoticeWatcher
from tests.integration.processes import eventually
from tests.metadata import Metadata

TERMINATE = {"action": "terminate", "time": "2026-11-22T08:22:00Z"}


def test_notice() -> None:
    with Metadata() as service:
        cloud = Ec2SpotNotices(service.address)
        assert cloud.notice() is None
        service.notice = TERMINATE
        assert cloud.notice() == "AWS will terminate this node at 2026-11-22T08:22:00Z"


def test_missing_service_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "POLL", 0.05)
    with Metadata() as service:
        address = service.address
    with caplog.at_level(logging.WARNING, "doppel_ray"):
        watcher = NoticeWatcher(Ec2SpotNotices(address))
        assert eventually(lambda: caplog.records, 60)
        assert not eventually(lambda: len(caplog.records) > 1, 1)
    assert f"{address} gives no spot notices (train.spot)" in caplog.text
    assert watcher.notice is None
