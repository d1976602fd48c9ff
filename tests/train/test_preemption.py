"""What a node learns of its own end from the cloud, against a metadata service on loopback."""

import logging

import pytest

from doppel_ray.train import notices
from doppel_ray.train.notices import Ec2SpotNotices, Watch
from tests.integration.processes import eventually
from tests.metadata import Metadata

TERMINATE = {"action": "terminate", "time": "2026-11-22T08:22:00Z"}


def test_a_spot_notice_is_read_once_there_is_one() -> None:
    with Metadata() as service:
        cloud = Ec2SpotNotices(service.address)
        assert cloud.notice() is None
        service.notice = TERMINATE
        assert cloud.notice() == "AWS will terminate this node at 2026-11-22T08:22:00Z"


def test_where_there_is_no_such_service_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "POLL", 0.05)
    with Metadata() as service:
        address = service.address
    with caplog.at_level(logging.WARNING, "doppel_ray"):
        watch = Watch(Ec2SpotNotices(address))
        assert eventually(lambda: caplog.records, 60)
        assert not eventually(lambda: len(caplog.records) > 1, 1)
    assert f"{address} says nothing of spot notices (train.spot)" in caplog.text
    assert watch.notice is None
