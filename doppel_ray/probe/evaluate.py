"""A checkpoint's scores on every task, beside two baselines on the same splits."""

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from doppel_ray.core.errors import ConfigError
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models import checkpoint
from doppel_ray.probe import baselines
from doppel_ray.probe.embed import Embedder, by_mel_statistics, by_model, embed_sounds
from doppel_ray.probe.protocols import ProtocolConfig, score_embeddings
from doppel_ray.probe.task import Split, TaskSpec
from doppel_ray.probe.tasks import Task

log = logging.getLogger(__name__)

EmbedderKind = Literal["trained", "untrained", "initial", "mel"]
"""trained: the checkpoint. untrained: the model before its first step, with batch-norm statistics of the run's pairs
(`baselines.untrained`). initial: the same with mean 0 and variance 1, the untrained baseline of older versions. mel:
mean and standard deviation over time of each mel band."""
BASELINES: tuple[EmbedderKind, ...] = ("mel", "untrained")
UNTRAINED_PAIRS = "probe/untrained_pairs"
"""Metric key: number of pairs whose batch-norm statistics the untrained baseline has; missing in old rows."""

TaskEmbeddings = tuple[np.ndarray, dict[int, str]]
"""Embeddings (n, size) float32, and for each sound that cannot be read its number and the reason."""


class TaskEmbedder:
    """Embeds the sounds of tasks with a checkpoint or one of its baselines.

    Args:
        folder: the checkpoint.
        cache: GB of decoded recordings kept on disk.
        device: of the model.
    """

    def __init__(self, folder: Path, cache: float = 0.0, device: str = "cpu") -> None:
        self.folder, self.cache, self.device = folder, cache, torch.device(device)
        self.recipe = checkpoint.recipe(folder)
        self._embedders: dict[EmbedderKind, Embedder] = {}

    def __call__(self, task: Task, kind: EmbedderKind, items: Sequence[int] | None = None) -> TaskEmbeddings:
        """Embed some sounds of a task, by default all."""
        sounds = task.load(self.recipe.sample_rate, self.cache).sounds
        items = range(len(sounds)) if items is None else items
        if kind not in self._embedders:
            self._embedders[kind] = self._embedder(kind)
        vectors = embed_sounds(sounds, items, self._embedders[kind])
        return vectors, {item: reason for item, reason in sounds.failed.items() if item in items}

    def _embedder(self, kind: EmbedderKind) -> Embedder:
        if kind == "mel":
            return by_mel_statistics(self.recipe.sample_rate)
        if kind == "trained":
            model = checkpoint.load(self.folder)[0]
        else:
            model = baselines.untrained(self.folder) if kind == "untrained" else self.recipe.untrained()
        return by_model(self.recipe.waveform_encoder(model), self.device)


def evaluate_checkpoint(
    folder: Path,
    tasks: Sequence[Task],
    protocol: ProtocolConfig,
    embedder: Callable[[Task, EmbedderKind], TaskEmbeddings],
    kept: Path | None = None,
    on_embeddings: Callable[[Task, TaskSpec, np.ndarray], None] = lambda task, spec, vectors: None,
) -> dict[str, float]:
    """Return the scores of a checkpoint.

    Args:
        folder: the checkpoint.
        tasks: to score it on.
        protocol: of the tasks without one of their own.
        embedder: embeds the sounds of a task, such as a `TaskEmbedder` of the folder.
        kept: folder where the baselines' scores are kept between probes; None: compute them again.
        on_embeddings: called with the checkpoint's embeddings of each task.

    Returns:
        For each task `probe/<task>/<metric>` for everything that `score_embeddings` returns, and its first metric for
        each baseline, as `probe/<task>/<metric>_mel` and `probe/<task>/<metric>_untrained`; and `UNTRAINED_PAIRS`.
        If the run's recordings are missing, the untrained baseline is left out and a warning logged.

    Raises:
        ConfigError: the checkpoint or a recording cannot be read.
    """
    sample_rate = checkpoint.recipe(folder).sample_rate
    scores: dict[str, float] = {}
    for task in tasks:
        of_task = task.protocol or protocol
        spec = task.spec(sample_rate)
        embeddings = embedder(task, "trained")
        on_embeddings(task, spec, embeddings[0])
        scores |= {
            f"probe/{task.name}/{name}": value for name, value in score_task(task, of_task, spec, embeddings).items()
        }
        first = spec.metrics[0]
        for kind in BASELINES:
            file = _file(task, of_task, folder, kept, kind)
            if file is not None and file.exists():
                value = json.loads(file.read_text(encoding="utf-8"))[first]
            elif kind == "mel" or _has_pairs(folder):
                value = score_task(task, of_task, spec, embedder(task, kind))[first]
                _keep(file, {first: value})
            else:
                continue
            scores[f"probe/{task.name}/{first}_{kind}"] = value
            if kind == "untrained":
                scores[UNTRAINED_PAIRS] = baselines.PAIRS
    return scores


def score_task(task: Task, protocol: ProtocolConfig, spec: TaskSpec, embeddings: TaskEmbeddings) -> dict[str, float]:
    """Return the scores of embeddings on a task, without the sounds that cannot be read.

    Raises:
        ConfigError: there are such sounds, and the task does not skip them.
    """
    vectors, failed = embeddings
    if failed and getattr(task, "unreadable", None) != "skip":
        raise ConfigError(
            f"probes.tasks, {task.name}: {len(failed)} of {len(vectors)} files cannot be read, first "
            f"{next(iter(failed.values()))}; mend them, or leave them out with --probes.unreadable skip"
        )
    kept = np.array([item not in failed for item in range(len(vectors))])
    return score_embeddings(protocol, vectors[kept], _without(spec, failed))


def _without(spec: TaskSpec, gone: Collection[int]) -> TaskSpec:
    """Return the task without the given examples, split indices renumbered."""
    if not gone:
        return spec
    kept = np.array([item not in gone for item in range(len(spec.targets))])
    place = np.cumsum(kept) - 1

    def moved(items: np.ndarray) -> np.ndarray:
        return place[items[kept[items]]]

    splits = (Split(s.name, moved(s.train), moved(s.valid), moved(s.test)) for s in spec.splits)
    return replace(spec, targets=spec.targets[kept], splits=tuple(splits))


def _has_pairs(folder: Path) -> bool:
    """Return whether the pairs of a checkpoint's run can be made on this machine; log the reason if not."""
    try:
        PairMaker.of(checkpoint.about(folder)["experiment"])
    except (KeyError, ValueError) as error:  # recordings that are elsewhere, or the sections of another version
        log.warning("left out the untrained baseline, whose batch-norm statistics need the run's pairs: %s", error)
        return False
    return True


def _file(task: Task, protocol: ProtocolConfig, folder: Path, kept: Path | None, kind: EmbedderKind) -> Path | None:
    """Return the file that keeps a baseline's score; None: it is not kept."""
    if kept is None:
        return None
    rate = checkpoint.recipe(folder).sample_rate
    spec = task.spec(rate)
    described = (task, protocol, spec.targets.tolist(), [(s.name, s.test.tolist()) for s in spec.splits])
    key = baselines.key(folder, described, task.files(rate), reads_pairs=kind == "untrained")
    return kept / f"{task.name}-{kind}-{key}.json"


def _keep(file: Path | None, scores: Mapping[str, float]) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(scores))
    partial.replace(file)
