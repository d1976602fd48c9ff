"""A pool of processes, over all nodes of a cluster, that share the sounds of a probe task."""

import doppel_ray.cluster.ray_env  # isort: skip  # noqa: F401  # before anything of Ray's

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.probe.evaluate import EmbedderKind, TaskEmbedder, TaskEmbeddings
from doppel_ray.probe.tasks import Task

SHARE = 32
"""Sounds that a process takes at a time: few enough that none ends long after the others."""


class _Worker:
    """One process of the pool."""

    def __init__(self, folder: Path, probes: ProbesConfig, task: Task, kind: EmbedderKind) -> None:
        import torch

        torch.set_num_threads(max(1, round(probes.cpus)))
        self.encoder = TaskEmbedder(folder, probes.cache, "cuda" if probes.gpus else "cpu")
        self.task, self.kind = task, kind

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        items = batch["item"].tolist()
        vectors, failed = self.encoder(self.task, self.kind, items)
        # Where no sound of a share can be read there is no size: an empty vector stands for it.
        rows = [row if item not in failed else row[:0] for item, row in zip(items, vectors, strict=True)]
        return {"item": items, "vector": [row.tolist() for row in rows], "failed": [failed.get(i, "") for i in items]}


class Pool:
    """`TaskEmbedder` by `probes.actors` processes.

    Args:
        folder: the checkpoint, on storage that every node sees.
        probes: what to ask, and with what.
    """

    def __init__(self, folder: Path, probes: ProbesConfig) -> None:
        self.folder, self.probes = folder, probes
        self.sample_rate = TaskEmbedder(folder).recipe.sample_rate

    def __call__(self, task: Task, kind: EmbedderKind) -> TaskEmbeddings:
        """The embeddings of all sounds of a task."""
        probes = self.probes
        count = len(task.spec(self.sample_rate).targets)
        shares = [pa.table({"item": np.arange(start, min(start + SHARE, count))}) for start in range(0, count, SHARE)]
        rows = (
            ray.data.from_arrow(shares)
            .map_batches(
                _Worker,
                fn_constructor_args=(self.folder, probes, task, kind),
                compute=ray.data.ActorPoolStrategy(size=min(probes.actors, len(shares))),
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
