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
from pydantic import Field

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Names, Section
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models import checkpoint
from doppel_ray.probe import baselines, protocols
from doppel_ray.probe.embed import Embedder, by_mel_statistics, by_model, embed
from doppel_ray.probe.protocols import NamedProtocol, ProtocolConfig
from doppel_ray.probe.task import Split, TaskSpec
from doppel_ray.probe.tasks import TASKS, Factors, Task, TaskConfigs, Unreadable

log = logging.getLogger(__name__)

Encoding = Literal["trained", "untrained", "initial", "mel"]
"""What turns a sound into a vector. trained: the checkpoint. untrained: the model as training began with it, with
batch-norm statistics of the run's pairs (`baselines.untrained`). initial: the same with mean 0 and variance 1, which
was the untrained baseline of older versions. mel: the mean and standard deviation of its mel bands."""
BASELINES: tuple[Encoding, ...] = ("mel", "untrained")
UNTRAINED_PAIRS = "probe/untrained_pairs"
"""Metric key: number of pairs whose batch-norm statistics the untrained baseline has; missing in old rows."""

Embedded = tuple[np.ndarray, dict[int, str]]
"""(n, size) float32, and why the sounds that have no embedding could not be read."""


class ProbesConfig(Section):
    """Probes, which score the embeddings of each checkpoint on tasks."""

    tasks: TaskConfigs = Field(
        default=(Factors(),),
        description="Tasks that score each checkpoint, each a kind or a mapping such as {kind: hear, root: DIR}; []: "
        "no probes. Kinds: " + ", ".join(f"{kind} ({about})" for kind, about in TASKS.items()) + ".",
    )
    root: Path | None = None
    """Folder of the recordings, for tasks without a root of their own."""
    every: int | Literal["best", "last"] = 1
    """When to probe: every N epochs, best (each epoch with the lowest loss so far) or last (only the last epoch). The
    last epoch is always probed."""
    protocol: NamedProtocol = ProtocolConfig()
    """Probe, for tasks without a protocol of their own."""
    test_folds: Names | None = Field(default=None, min_length=1)
    """Folds to test on, each with a probe trained on all other folds; null: every fold in turn. [5] tests on unseen
    recordings if source.recordings.folds is [1, 2, 3, 4]."""
    unreadable: Unreadable = "refuse"
    """What to do about an unreadable recording. refuse: stop before training starts. skip: leave it out and log it."""
    cache: float = Field(default=4.0, ge=0.0)
    """Size of the disk cache of decoded recordings in GB, in $DOPPEL_RAY_CACHE or the user's cache folder; 0: no
    cache."""
    actors: int = Field(default=1, ge=1, le=256)
    """Number of processes that embed a task's sounds in parallel, each with `cpus` and `gpus`; 1: the probe itself."""
    cpus: float = Field(default=1.0, gt=0.0)
    """CPUs reserved for a probe, in addition to the trial's."""
    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs reserved for a probe; 0: run on the CPU."""
    projector: int = Field(default=1000, ge=0)
    """Number of sounds of the first task whose newest embeddings TensorBoard's projector shows; 0: none."""
    timeout: float = Field(default=600.0, gt=0.0)
    """Seconds from request until a probe is cancelled; the trial continues, and its metrics are marked."""

    def build(self) -> list[Task]:
        """The tasks, in which everything that an entry leaves open is as it is here."""
        return [task.with_defaults(self.root, self.unreadable, self.test_folds) for task in self.tasks]

    def check(self, sample_rate: int = 16000) -> None:
        """Refuse missing or unreadable recordings before anything starts.

        Raises:
            ConfigError: names the task, the folder or the files.
        """
        for task in self.build():
            task.check(sample_rate)


class Encoder:
    """Embeds the sounds of tasks as a checkpoint, or one of its baselines, hears them.

    Args:
        folder: the checkpoint.
        cache: GB of decoded recordings kept on disk.
        device: where the model runs.
    """

    def __init__(self, folder: Path, cache: float = 0.0, device: str = "cpu") -> None:
        self.folder, self.cache, self.device = folder, cache, torch.device(device)
        self.recipe = checkpoint.recipe(folder)
        self._embedders: dict[Encoding, Embedder] = {}

    def __call__(self, task: Task, encoding: Encoding, items: Sequence[int] | None = None) -> Embedded:
        """The embeddings of some sounds of a task, or of all."""
        sounds = task.load(self.recipe.sample_rate, self.cache).sounds
        items = range(len(sounds)) if items is None else items
        if encoding not in self._embedders:
            self._embedders[encoding] = self._embedder(encoding)
        vectors = embed(sounds, items, self._embedders[encoding])
        return vectors, {item: reason for item, reason in sounds.failed.items() if item in items}

    def _embedder(self, encoding: Encoding) -> Embedder:
        if encoding == "mel":
            return by_mel_statistics(self.recipe.sample_rate)
        if encoding == "trained":
            model = checkpoint.load(self.folder)[0]
        else:
            model = baselines.untrained(self.folder) if encoding == "untrained" else self.recipe.untrained()
        return by_model(self.recipe.waveform_encoder(model), self.device)


def evaluate(
    folder: Path,
    probes: ProbesConfig,
    kept: Path | None = None,
    encoder: Callable[[Task, Encoding], Embedded] | None = None,
    seen: Callable[[Task, TaskSpec, np.ndarray], None] = lambda task, questions, vectors: None,
) -> dict[str, float]:
    """Scores of one checkpoint.

    Args:
        folder: the checkpoint.
        probes: what to ask.
        kept: folder where the baselines' scores are kept between probes; None: compute them again.
        encoder: what embeds the sounds of a task; None: this process.
        seen: is shown the checkpoint's embeddings of each task.

    Returns:
        Of each task `probe/<task>/<metric>` for everything that `protocols.evaluate` gives, and its first metric for
        each baseline, as `probe/<task>/<metric>_mel` and `probe/<task>/<metric>_untrained`; and `UNTRAINED_PAIRS`.
        Where the run's recordings are not there, the untrained baseline is left out and a warning logged.

    Raises:
        ConfigError: the checkpoint or a recording cannot be read.
    """
    encoder = encoder or Encoder(folder, probes.cache)
    recipe = checkpoint.recipe(folder)
    scores: dict[str, float] = {}
    for task in probes.build():
        protocol = task.protocol or probes.protocol
        questions = task.questions(recipe.sample_rate)
        embedded = encoder(task, "trained")
        seen(task, questions, embedded[0])
        found = score(task, protocol, questions, embedded)
        first = questions.metrics[0]
        reference: dict[str, float] = {}
        for which in BASELINES:
            file = _file(task, protocol, folder, kept, which)
            if file is not None and file.exists():
                reference[which] = json.loads(file.read_text())[first]
            elif which == "mel" or _has_pairs(folder):
                reference[which] = score(task, protocol, questions, encoder(task, which))[first]
                _keep(file, {first: reference[which]})
        scores |= {f"probe/{task.name}/{metric}": value for metric, value in found.items()}
        scores |= {f"probe/{task.name}/{first}_{which}": value for which, value in reference.items()}
        if "untrained" in reference:
            scores[UNTRAINED_PAIRS] = baselines.PAIRS
    return scores


def score(task: Task, protocol: ProtocolConfig, questions: TaskSpec, embedded: Embedded) -> dict[str, float]:
    """What embeddings score on a task, without the sounds that could not be read.

    Raises:
        ConfigError: there are such sounds, and the task is not to skip them.
    """
    vectors, failed = embedded
    if failed and getattr(task, "unreadable", None) != "skip":
        raise ConfigError(
            f"probes.tasks, {task.name}: {len(failed)} of {len(vectors)} files cannot be read, first "
            f"{next(iter(failed.values()))}; mend them, or leave them out with --probes.unreadable skip"
        )
    kept = np.array([item not in failed for item in range(len(vectors))])
    return protocols.evaluate(protocol, vectors[kept], _without(questions, failed))


def _without(questions: TaskSpec, gone: Collection[int]) -> TaskSpec:
    """What is asked of the examples but these."""
    if not gone:
        return questions
    kept = np.array([item not in gone for item in range(len(questions.targets))])
    place = np.cumsum(kept) - 1

    def moved(items: np.ndarray) -> np.ndarray:
        return place[items[kept[items]]]

    splits = (Split(s.name, moved(s.train), moved(s.valid), moved(s.test)) for s in questions.splits)
    return replace(questions, targets=questions.targets[kept], splits=tuple(splits))


def _has_pairs(folder: Path) -> bool:
    """Whether the pairs of a checkpoint's run can be made here; logs why not."""
    try:
        PairMaker.of(checkpoint.about(folder)["experiment"])
    except (KeyError, ValueError) as error:  # recordings that are elsewhere, or the sections of another version
        log.warning("left out the untrained baseline, whose batch-norm statistics need the run's pairs: %s", error)
        return False
    return True


def _file(task: Task, protocol: ProtocolConfig, folder: Path, kept: Path | None, which: Encoding) -> Path | None:
    """Where a baseline's score is kept; None: nowhere."""
    if kept is None:
        return None
    rate = checkpoint.recipe(folder).sample_rate
    questions = task.questions(rate)
    asked = (task, protocol, questions.targets.tolist(), [(s.name, s.test.tolist()) for s in questions.splits])
    key = baselines.key(folder, asked, task.files(rate), reads_pairs=which == "untrained")
    return kept / f"{task.name}-{which}-{key}.json"


def _keep(file: Path | None, scores: Mapping[str, float]) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(scores))
    partial.replace(file)
