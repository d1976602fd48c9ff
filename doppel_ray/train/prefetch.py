"""Batches fetched and converted beside the training step."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

WARN_SECONDS = 30.0
"""Seconds of waiting for a batch between warnings."""


@dataclass
class Batch:
    """One train worker's part of a batch.

    Attributes:
        features: (local batch, 2, ...) float16, on the device.
        labels: (local batch,) int64, on the device.
        ids: (local batch,) int64, on the device.
        telemetry: the generators' other columns, (local batch,) each.
        waited: seconds that training waited for it.
    """

    features: Tensor
    labels: Tensor
    ids: Tensor
    telemetry: dict[str, np.ndarray]
    waited: float = 0.0

    @property
    def index(self) -> np.ndarray:
        """Indices of the pairs, (local batch,) int64."""
        return self.telemetry["index"]


class Prefetcher:
    """Fetches the batches of one worker, in order, and moves them to its device.

    Args:
        columns: dictionaries of NumPy columns, as the generators make them.
        device: where the features go.
        timeout: seconds to wait for a batch.
    """

    def __init__(self, columns: Iterator[dict[str, np.ndarray]], device: torch.device, timeout: float) -> None:
        self.device = device
        self.timeout = timeout
        self._ready: queue.Queue[Batch | Exception] = queue.Queue(maxsize=1)
        self._first: Batch | None = None
        threading.Thread(target=self._fill, args=(columns,), daemon=True, name="prefetch").start()

    def wait_for_first(self) -> None:
        """Wait until the first batch is there, so that an epoch's clock starts after the generators."""
        self._first = self.next()
        self._first.waited = 0.0

    def take(self, count: int) -> Iterator[Batch]:
        """Yield the next `count` batches."""
        for _ in range(count):
            batch, self._first = self._first or self.next(), None
            yield batch

    def next(self) -> Batch:
        """Return the next batch.

        Raises:
            TimeoutError: it did not come within `timeout`.
            RuntimeError: the stream has ended or failed.
        """
        began = time.perf_counter()
        while True:
            try:
                item = self._ready.get(timeout=min(WARN_SECONDS, self.timeout))
                break
            except queue.Empty:
                self._warn_or_raise(time.perf_counter() - began)
        if isinstance(item, Exception):
            lines = [line.strip() for line in str(item).splitlines() if line.strip()]
            raise RuntimeError(f"the stream of pairs ended early: {lines[-1] if lines else 'no pairs left'}") from item
        item.waited = time.perf_counter() - began
        return item

    def _warn_or_raise(self, waited: float) -> None:
        if waited >= self.timeout:
            raise TimeoutError(
                f"no batch came from the generators in {waited:.0f} s (train.data_timeout): "
                "they have too few CPUs, or all of them fail; `ray status` shows what waits"
            ) from None
        log.warning("waiting for data for %.0f s; giving up after %.0f s (train.data_timeout)", waited, self.timeout)

    def _fill(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        try:
            for columns in batches:
                features, labels, ids = (self._move(columns.pop(name)) for name in ("features", "label", "id"))
                self._ready.put(Batch(features, labels, ids, columns))
            self._ready.put(StopIteration())
        except Exception as error:  # raised in the training thread
            self._ready.put(error)

    def _move(self, column: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(column)).to(self.device)
