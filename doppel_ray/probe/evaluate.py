"""A checkpoint's scores on every task, beside two baselines on the same split."""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from doppel_ray import checkpoint
from doppel_ray.audio import FrontendConfig
from doppel_ray.probe import fit
from doppel_ray.probe.embed import Embedder, by_mel_statistics, by_model, embed
from doppel_ray.probe.tasks import TASKS, Task, make
from doppel_ray.section import Section

BASELINES = ("mel", "untrained")


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in TASKS:
            raise ValueError(f"there is no task {name!r}; expected one of {', '.join(TASKS)}")
    if len(set(names)) < len(names):
        raise ValueError("a task is named twice")
    return names


class ProbesConfig(Section):
    """What each checkpoint is asked."""

    tasks: Annotated[tuple[str, ...], AfterValidator(_known)] = ("factors",)
    """factors (built in), esc10, esc50 (from `root`); an empty list: no probes."""
    root: Path | None = None
    """Folder of the recordings, in ESC-50's own layout."""
    every: int = Field(default=1, ge=1)
    """Epochs between probes; the last epoch is always probed."""
    protocol: Literal["linear"] = "linear"
    """linear: logistic regression for classes, ridge regression for values, on standardised embeddings."""
    factor_sounds: int = Field(default=1024, ge=64)
    """Sounds of the factors task."""
    test_folds: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Folds of esc10 and esc50 to test on, each with a probe of all the others; null: every one in turn. [5] keeps
    unseen what source.recordings.folds [1, 2, 3, 4] has left out of training."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What to do about a recording that cannot be read."""
    cpus: float = Field(default=1.0, gt=0.0)
    """CPUs that a probe reserves, outside the trial's own."""
    timeout: float = Field(default=600.0, gt=0.0)
    """Seconds after which a probe is given up, from when it was asked for; the trial goes on, its row is marked."""

    def build(self) -> list[Task]:
        return [make(name, self.root, self.unreadable, self.factor_sounds, self.test_folds) for name in self.tasks]

    def check(self) -> None:
        """Refuse missing or unreadable recordings before anything starts.

        Raises:
            ConfigError: names the folder or the files.
        """
        for task in self.build():
            task.check()


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
        found = score(task, recipe, by_model(model, recipe.build_frontend()), recipe.samples)
        reference = _baselines(task, recipe, baselines)
        scores |= {f"probe/{task.name}/{metric}": value for metric, value in found.items()}
        scores |= {f"probe/{task.name}/{task.metric}_{which}": reference[which] for which in BASELINES}
    return scores


def score(task: Task, recipe: checkpoint.Recipe, embedder: Embedder, window: int | None) -> dict[str, float]:
    """Metrics of one task."""
    examples = task.load(recipe.synth.sample_rate)
    vectors = embed(examples, embedder, window)
    if task.kind == "classification":
        return fit.classify(vectors, examples.targets["class"], examples.folds, task.test_folds)
    return fit.regress(vectors, examples.targets, examples.folds)


def _baselines(task: Task, recipe: checkpoint.Recipe, kept: Path | None) -> dict[str, float]:
    """The task's first metric for mel statistics and for the same encoder untrained, computed once for each model."""
    key = hashlib.sha256(repr((task, recipe)).encode()).hexdigest()[:16]
    file = kept / f"{task.name}-{key}.json" if kept else None
    if file and file.exists():
        return json.loads(file.read_text())
    frontend = recipe.build_frontend()
    found = {
        "mel": score(task, recipe, by_mel_statistics(FrontendConfig().build(recipe.synth.sample_rate)), None)[
            task.metric
        ],
        "untrained": score(task, recipe, by_model(recipe.untrained(), frontend), recipe.samples)[task.metric],
    }
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found))
        partial.replace(file)
    return found
