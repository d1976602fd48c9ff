"""A listing: the recordings of a task with their answers, and how they are divided into what is fitted and tested."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings.tables import count, first, in_order
from doppel_ray.probe.metrics import check
from doppel_ray.probe.task import Kind, Split, TaskSpec
from doppel_ray.probe.validation import FEWEST, measurable, parts

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Listing:
    """What a source says of its recordings.

    Attributes:
        paths: of the files.
        kind: what is asked of them.
        targets: as in `TaskSpec`.
        labels: names of the classes, or of the values.
        parts: for each file "train", "valid" or "test", or the name of its fold.
        metrics: of the source, the first of which is the score of the task.
    """

    paths: tuple[Path, ...]
    kind: Kind
    targets: np.ndarray
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    metrics: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, gone: Collection[Path]) -> "Listing":
        """All but the files of these paths."""
        kept = [item for item, path in enumerate(self.paths) if path not in gone]
        return replace(
            self,
            paths=tuple(self.paths[item] for item in kept),
            targets=self.targets[kept],
            parts=tuple(self.parts[item] for item in kept),
        )

    def questions(self, test_folds: Sequence[str] | None = None, metrics: tuple[str, ...] | None = None) -> TaskSpec:
        """What is asked, with the splits.

        Args:
            test_folds: the folds to test on; None: each in turn. A source with a test split of its own has none.
            metrics: in place of the source's.

        Raises:
            ConfigError: a file is listed twice or in no split; there is nothing to fit or nothing to test on; or a
                metric does not fit.
        """
        twice = [str(path) for path, times in Counter(self.paths).items() if times > 1]
        if twice:
            raise ConfigError(f"{count(twice, 'file')} listed more than once: {first(twice)}")
        metrics = metrics or self.metrics
        check(metrics, self.kind, self.labels)
        found = TaskSpec(self.kind, self.targets, self.labels, self._splits(test_folds), metrics)
        for split in found.splits:
            _check_split(found, split)
        return found

    def _splits(self, test_folds: Sequence[str] | None) -> tuple[Split, ...]:
        parts = np.array(self.parts)
        nowhere = [str(path) for path, part in zip(self.paths, self.parts, strict=True) if not part]
        if nowhere:
            raise ConfigError(f"{count(nowhere, 'file')} in no split or fold: {first(nowhere)}")
        names = in_order(self.parts)
        if set(names) & set(SPLITS):
            if strange := sorted(set(names) - set(SPLITS)):
                raise ConfigError(f"{first(strange)} is among the splits; expected train, valid and test, or folds")
            if missing := [name for name in ("train", "test") if name not in names]:
                raise ConfigError(f"no file is in split {' or '.join(missing)}; there is {', '.join(names)}")
            return (Split("test", *(np.flatnonzero(parts == name) for name in SPLITS)),)
        if len(names) < 2:
            raise ConfigError(
                f"all {count(parts, 'file')} are in fold {', '.join(names)}; cross-validation needs at least 2 folds"
            )
        if strange := sorted(set(test_folds or ()) - set(names)):
            raise ConfigError(f"test_folds has {strange[0]}, and there are folds {', '.join(names)}")
        return tuple(
            split
            for name, split in zip(names, rotated(self.parts, test_folds), strict=True)
            if test_folds is None or name in test_folds
        )


def rotated(folds: Sequence[str], test_folds: Collection[str] | None = None) -> tuple[Split, ...]:
    """Return a split for each fold, which is its test set; the next fold, as HEAR has it, is for validation.

    Where only some folds are tested, the next of the others is for validation. Of two folds there is none, since
    nothing would be left to fit: `validation.parts` takes a tenth.

    Args:
        folds: of each example.
        test_folds: those that are tested; None: all.
    """
    names, where = in_order(folds), np.array(folds)
    splits = []
    for place, name in enumerate(names):
        following = [names[(place + step) % len(names)] for step in range(1, len(names))]
        untested = [other for other in following if test_folds is not None and other not in test_folds]
        test, valid = where == name, where == (untested or following or [""])[0]
        if len(names) == 2:
            valid = np.zeros_like(test)
        positions = (np.flatnonzero(which) for which in (~test & ~valid, valid, test))
        splits.append(Split(f"fold_{name.removeprefix('fold')}", *positions))
    return tuple(splits)


def divided(paths: Sequence[str], groups: Sequence[object]) -> tuple[str, ...]:
    """Five folds for a source that has none: each group is dealt out over them, as evenly as can be.

    Within a group the order is that of the SHA-256 of the paths as listed: the same everywhere, in whatever order they
    are listed, and unlike that of the names, in which neighbours often come from one recording.
    """

    def rank(item: int) -> tuple[str, bytes]:
        return str(groups[item]), hashlib.sha256(paths[item].encode()).digest()

    folds = [""] * len(paths)
    for place, item in enumerate(sorted(range(len(paths)), key=rank)):
        folds[item] = str(place % 5 + 1)
    return tuple(folds)


def gaps(questions: TaskSpec) -> list[str]:
    """What is wrong with the classes but keeps nothing from being measured, a line for each.

    A class that is tested and was never fitted counts as wrong answers. That is told and not refused: folds of rare
    classes have such gaps in published tasks too (HEAR's among them), whose scores have them in, and a subset that a
    user has made to save time would otherwise not run at all.
    """
    if questions.kind == "regression":
        return []
    has = _membership(questions)
    told = []

    def tell(which: Any, what: str) -> None:
        names = [
            f"{label} ({files})"
            for label, chosen, files in zip(questions.labels, which, has.sum(axis=0), strict=True)
            if chosen
        ]
        if names:
            told.append(f"{len(names)} of {len(questions.labels)} classes {what}: {first(names, 5)}")

    there = has.any(axis=0)
    fitted = [has[np.concatenate([split.train, split.valid])].any(axis=0) for split in questions.splits]
    tested = [has[split.test].any(axis=0) for split in questions.splits]
    tell(~there, "without any file")
    tell(np.stack([t & ~f for t, f in zip(tested, fitted, strict=True)]).any(axis=0), "tested, but not in training")
    tell(there & ~np.stack(tested).any(axis=0), "never tested")
    validated = [has[parts(questions, split)[1]].any(axis=0) for split in questions.splits]
    tell(
        np.stack([f & ~v for f, v in zip(fitted, validated, strict=True)]).any(axis=0),
        "missing from validation examples, whose score is that of the other classes",
    )
    for split in questions.splits:
        if len(split.valid) and not measurable(questions, split.valid):
            names = ", ".join(itertools.compress(questions.labels, has[split.valid].any(axis=0)))
            told.append(
                f"{split.name}: all {len(split.valid)} validation examples have the same classes ({names or 'none'}); "
                "a stratified tenth of the training and validation examples validates instead"
            )
    return told


def _membership(questions: TaskSpec) -> np.ndarray:
    """(n, labels) bool: which classes each file has."""
    if questions.kind == "multilabel":
        return questions.targets
    return questions.targets[:, None] == np.arange(len(questions.labels))


def _check_split(questions: TaskSpec, split: Split) -> None:
    fit = np.concatenate([split.train, split.valid])
    for name, items in (("train", split.train), ("test", split.test)):
        if len(items) == 0:
            raise ConfigError(f"{split.name}: no file is left to {'fit' if name == 'train' else 'test'} on")
    if questions.kind == "multiclass" and len(classes := np.unique(questions.targets[fit])) < 2:
        raise ConfigError(
            f"{split.name}: all {len(fit)} files to fit are {questions.labels[classes[0]]}; expected at least 2 classes"
        )
    if len(fit) < FEWEST and not measurable(questions, split.valid):
        raise ConfigError(f"{split.name}: {count(fit, 'file')} to fit and to validate on; expected {FEWEST} or more")
    if questions.kind == "regression":
        for label, values in zip(questions.labels, questions.targets.T, strict=True):
            if np.ptp(values[split.test]) == 0.0:
                raise ConfigError(f"{split.name}: {label} is {values[split.test][0]:g} in all {len(split.test)} files")
