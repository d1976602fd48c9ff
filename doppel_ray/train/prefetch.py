"""Batches fetched and converted beside the training step."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


class Prefetcher:
    """Batches for one worker, in order, fetched and converted beside the training step.

    Args:
        batches: dictionaries of NumPy columns, as the generators make them.
        device: where the features go.
        timeout: seconds to wait for a batch.
    """

    def __init__(self, batches: Iterator[dict[str, np.ndarray]], device: torch.device, timeout: float) -> None:
        self.device = device
        self.timeout = timeout
        self.waited = 0.0
        """Seconds that training waited for data."""
        self.ready: queue.Queue[Any] = queue.Queue(maxsize=1)
        threading.Thread(target=self._fill, args=(batches,), daemon=True, name="feed").start()

    def _fill(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        try:
            for batch in batches:
                features = torch.from_numpy(np.ascontiguousarray(batch.pop("features"))).to(self.device)
                labels = torch.from_numpy(np.ascontiguousarray(batch.pop("label"))).to(self.device)
                ids = torch.from_numpy(np.ascontiguousarray(batch.pop("id"))).to(self.device)
                self.ready.put((features, labels, ids, batch))
            self.ready.put(StopIteration())
        except Exception as error:  # handed to the training thread, which raises it
            self.ready.put(error)

    def next(self) -> tuple[Tensor, Tensor, Tensor, dict[str, np.ndarray]]:
        """The next batch: features (local batch, 2, ...) float16, labels and identities (local batch,) int64, and the
        other columns.

        Raises:
            TimeoutError: no batch came in time.
        """
        began = time.perf_counter()
        while True:
            try:
                item = self.ready.get(timeout=min(30.0, self.timeout))
                break
            except queue.Empty:
                waited = time.perf_counter() - began
                if waited >= self.timeout:
                    raise TimeoutError(
                        f"no batch came from the generators in {waited:.0f} s (train.data_timeout): "
                        "they are starved of CPUs, or every one of them fails; `ray status` shows what waits"
                    ) from None
                log.warning(
                    "waiting for data since %.0f s; giving up after %.0f s (train.data_timeout)", waited, self.timeout
                )
        self.waited += time.perf_counter() - began
        if isinstance(item, Exception):
            lines = [line.strip() for line in str(item).splitlines() if line.strip()]
            raise RuntimeError(
                f"the stream of pairs ended early: {lines[-1] if lines else 'it is at its end'}"
            ) from item
        return item
