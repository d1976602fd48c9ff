"""A checkpoint's scores on every task, beside two baselines on the same split."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from doppel_ray import checkpoint
from doppel_ray.audio.frontend import VGGish
from doppel_ray.probe import fit
from doppel_ray.probe.embed import Embedder, by_mel_statistics, by_model, embed
from doppel_ray.probe.tasks import TASKS, Factors, Task, TaskConfigs, Unreadable
from doppel_ray.section import Names, Section

BASELINES = ("mel", "untrained")


class ProbesConfig(Section):
    """What each checkpoint is asked."""

    tasks: TaskConfigs = Field(
        default=(Factors(),),
        description="What to ask, each a kind or a mapping such as {kind: hear, root: DIR}; an empty list: no probes. "
        + "; ".join(f"{kind}: {about}" for kind, about in TASKS.items())
        + ".",
    )
    root: Path | None = None
    """Folder of the recordings, where a task does not say its own."""
    every: int = Field(default=1, ge=1)
    """Epochs between probes; the last epoch is always probed."""
    protocol: Literal["linear"] = "linear"
    """linear: logistic regression for classes, ridge regression for values, on standardised embeddings."""
    test_folds: Names | None = Field(default=None, min_length=1)
    """Folds of recordings to test on, each with a probe of all the others; null: every one in turn. [5] keeps
    unseen what source.recordings.folds [1, 2, 3, 4] has left out of training."""
    unreadable: Unreadable = "refuse"
    """What to do about a recording that cannot be read."""
    cache: float = Field(default=4.0, ge=0.0)
    """GB of decoded recordings that are kept on disk, in $DOPPEL_RAY_CACHE or the user's cache folder, so that the next
    probe need not decode them; 0: none."""
    cpus: float = Field(default=1.0, gt=0.0)
    """CPUs that a probe reserves, outside the trial's own."""
    timeout: float = Field(default=600.0, gt=0.0)
    """Seconds after which a probe is given up, from when it was asked for; the trial goes on, its row is marked."""

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


def evaluate(folder: Path, probes: ProbesConfig, baselines: Path | None = None) -> dict[str, float]:
    """Scores of one checkpoint.

    Args:
        folder: the checkpoint.
        probes: what to ask.
        baselines: folder where the baselines' scores are kept between probes; None: compute them again.

    Returns:
        `probe/<task>/<metric>` for the checkpoint, and the task's first metric for each baseline, as
        `probe/<task>/<metric>_mel` and `probe/<task>/<metric>_untrained`.
    """
    model, recipe = checkpoint.load(folder)
    scores: dict[str, float] = {}
    for task in probes.build():
        found = score(task, recipe, by_model(model, frontend_of(recipe)), window_of(recipe), probes.cache)
        reference = _baselines(task, recipe, baselines, probes.cache)
        scores |= {f"probe/{task.name}/{metric}": value for metric, value in found.items()}
        scores |= {f"probe/{task.name}/{next(iter(found))}_{which}": reference[which] for which in BASELINES}
    return scores


def frontend_of(recipe: checkpoint.Recipe) -> Any:
    return recipe.frontend.build(recipe.synth.sample_rate)


def window_of(recipe: checkpoint.Recipe) -> int:
    """Samples of the sounds that the model was trained on."""
    return round(recipe.synth.duration * recipe.synth.sample_rate)


def score(
    task: Task, recipe: checkpoint.Recipe, embedder: Embedder, window: int | None, cache: float = 0.0
) -> dict[str, float]:
    """Metrics of one task, the first of which trials are judged by."""
    sounds, questions = (examples := task.load(recipe.synth.sample_rate, cache)).sounds, examples.questions
    vectors = embed(sounds, range(len(sounds)), embedder, window)
    readable = np.array([item not in sounds.failed for item in range(len(sounds))])
    folds = np.zeros(len(sounds), dtype=np.int64)
    for number, split in enumerate(questions.splits, start=1):
        folds[split.test] = number
    vectors, targets, folds = vectors[readable], questions.targets[readable], folds[readable]
    if questions.kind == "regression":
        return fit.regress(vectors, dict(zip(questions.labels, targets.T, strict=True)), folds)
    return fit.classify(vectors, targets, folds, tuple(np.unique(folds[folds > 0]).tolist()))


def _baselines(task: Task, recipe: checkpoint.Recipe, kept: Path | None, cache: float) -> dict[str, float]:
    """The task's first metric for mel statistics and for the same encoder untrained, computed once for each model."""
    key = hashlib.sha256(repr((task, recipe)).encode()).hexdigest()[:16]
    file = kept / f"{task.name}-{key}.json" if kept else None
    if file and file.exists():
        return json.loads(file.read_text())
    rate, untrained = recipe.synth.sample_rate, by_model(recipe.untrained(), frontend_of(recipe))
    mel = score(task, recipe, by_mel_statistics(VGGish(rate)), None, cache)
    found = {
        "mel": next(iter(mel.values())),
        "untrained": next(iter(score(task, recipe, untrained, window_of(recipe), cache).values())),
    }
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found))
        partial.replace(file)
    return found
