"""Batches and metrics of a train worker, without Ray."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from doppel_ray.runs.metrics_log import STEPS
from doppel_ray.train.prefetch import Prefetcher
from doppel_ray.train.step_log import EpochMetrics, StepLog

BATCH = 4


def stream(count: int, delay: float = 0.0) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches as generators make them; two of one process id, in two pods, restarted; each batch skips two."""
    for number in range(count):
        time.sleep(delay)
        index = np.arange(BATCH * number, BATCH * (number + 1))
        yield {
            "index": index,
            "features": np.ones((BATCH, 2, 1, 3, 3), np.float16),
            "label": np.zeros(BATCH, np.int64),
            "id": index.copy(),
            "seconds": np.full(BATCH, 0.5, np.float32),
            "generator": np.array([1, 1, 1, 1], np.int32),
            "restarted": np.array([7, 8, 0, 0]),
            "skipped": np.array(["a.wav: truncated\nb.wav: empty", "", "", ""], dtype=object),
        }


def prefetcher(columns: Iterator[dict[str, np.ndarray]], timeout: float = 60.0) -> Prefetcher:
    return Prefetcher(columns, torch.device("cpu"), timeout)


def test_batches_come_in_order_and_say_how_long_training_waited() -> None:
    batches = prefetcher(stream(4, delay=0.2))
    batches.wait_for_first()
    found = list(batches.take(3)) + list(batches.take(1))
    assert np.concatenate([batch.index for batch in found]).tolist() == list(range(16))
    assert found[0].waited == 0.0, "an epoch's clock starts after the generators"
    assert all(batch.waited > 0.05 for batch in found[1:])
    assert found[0].features.dtype == torch.float16
    assert found[1].ids.tolist() == [4, 5, 6, 7]


def test_end_of_the_stream() -> None:
    with pytest.raises(RuntimeError, match="the stream of pairs ended early: no pairs left"):
        list(prefetcher(stream(1)).take(2))


def test_error_of_the_stream() -> None:
    def broken() -> Iterator[dict[str, np.ndarray]]:
        yield from stream(1)
        raise ValueError("many lines\nof Ray\n\nthe last one\n")

    with pytest.raises(RuntimeError, match="ended early: the last one"):
        list(prefetcher(broken()).take(2))


def test_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"no batch came from the generators in 0 s \(train\.data_timeout\)"):
        prefetcher(stream(1, delay=1.0), timeout=0.1).next()


def test_metrics_of_an_epoch_and_points_by_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A step that diverged has no loss; means are of the others."""
    metrics = EpochMetrics(StepLog(tmp_path, every=2, step=10), BATCH)
    metrics.start(40)
    for step, (batch, found) in enumerate(
        zip(prefetcher(stream(4)).take(4), [{"loss": 4.0}, {"loss": 3.0}, {}, {"loss": 2.0}], strict=True), start=11
    ):
        metrics.add(batch, found, step)
    row = metrics.take(56)
    assert (row["loss"], row["generator_seconds_per_pair"]) == (3.0, 0.5)
    assert (row["pairs"], row["pairs_from"]) == (56, 40)
    assert (row["generator_restarts"], row["recordings_skipped"]) == (2, 8)
    assert row["pairs_per_second"] == pytest.approx(16 / row["train_seconds"])
    assert 0.0 <= row["wait_share"] <= 1.0
    assert caplog.text.count("recording skipped, a.wav: truncated") == 4
    start, first, second = [json.loads(line) for line in (tmp_path / STEPS).read_text().splitlines()]
    assert start == {"goes_on_from": 10}
    assert [(point["step"], point["loss"]) for point in (first, second)] == [(12, 3.5), (14, 2.0)]
