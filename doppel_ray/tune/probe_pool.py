"""Embedding the sounds of a probe task with a pool of processes on all nodes of a cluster."""

import doppel_ray.cluster.ray_env  # isort: skip  # noqa: F401  # before anything of Ray's

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.probe.evaluate import EmbedderKind, TaskEmbedder, TaskEmbeddings
from doppel_ray.probe.tasks import Task

CHUNK = 32
"""Sounds that a process takes at a time: few, so that all processes end at about the same time."""


class _Worker:
    """One process of the pool."""

    def __init__(self, folder: Path, probes: ProbesConfig, task: Task, encoding: EmbedderKind) -> None:
        import torch

        torch.set_num_threads(max(1, round(probes.cpus)))
        self.encoder = TaskEmbedder(folder, probes.cache, "cuda" if probes.gpus else "cpu")
        self.task, self.encoding = task, encoding

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        items = batch["item"].tolist()
        vectors, failed = self.encoder(self.task, self.encoding, items)
        # If no sound of a chunk can be read, the embedding's size is unknown: an unreadable sound has an empty vector.
        rows = [row if item not in failed else row[:0] for item, row in zip(items, vectors, strict=True)]
        return {"item": items, "vector": [row.tolist() for row in rows], "failed": [failed.get(i, "") for i in items]}


class EncoderPool:
    """`TaskEmbedder` with `probes.actors` processes.

    Args:
        folder: the checkpoint, on storage that every node sees.
        probes: what to evaluate, and with what.
    """

    def __init__(self, folder: Path, probes: ProbesConfig) -> None:
        self.folder, self.probes = folder, probes
        self.sample_rate = TaskEmbedder(folder).recipe.sample_rate

    def __call__(self, task: Task, encoding: EmbedderKind) -> TaskEmbeddings:
        """Return the embeddings of all sounds of a task, and why some could not be read."""
        probes = self.probes
        count = len(task.spec(self.sample_rate).targets)
        chunks = [pa.table({"item": np.arange(start, min(start + CHUNK, count))}) for start in range(0, count, CHUNK)]
        rows = (
            ray.data.from_arrow(chunks)
            .map_batches(
                _Worker,
                fn_constructor_args=(self.folder, probes, task, encoding),
                compute=ray.data.ActorPoolStrategy(size=min(probes.actors, len(chunks))),
                batch_size=None,
                num_cpus=probes.cpus,
                num_gpus=probes.gpus or None,
            )
            .take_all()
        )
        rows.sort(key=lambda row: row["item"])
        size = max(len(row["vector"]) for row in rows)
        empty = [float("nan")] * size
        vectors = np.array([row["vector"] if not row["failed"] else empty for row in rows], dtype=np.float32)
        return vectors, {row["item"]: row["failed"] for row in rows if row["failed"]}
