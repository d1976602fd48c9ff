"""The recordings of a task with their targets, and how they are split."""

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
from doppel_ray.probe.protocols import check_names
from doppel_ray.probe.task import Kind, Split, TaskSpec
from doppel_ray.probe.validation import FEWEST, measurable, parts

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Listing:
    """A data set's recordings with their targets.

    Attributes:
        paths: of the files.
        kind: of the targets.
        targets: as in `TaskSpec`.
        labels: names of the classes, or of the values.
        parts: for each file "train", "valid" or "test", or the name of its fold.
        metrics: of the data set; the first is the score of the task.
        skipped: a line about what else is in the folders that were searched; "" if nothing was.
    """

    paths: tuple[Path, ...]
    kind: Kind
    targets: np.ndarray
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    metrics: tuple[str, ...]
    skipped: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, gone: Collection[Path]) -> "Listing":
        """Return the listing without the given files."""
        kept = [item for item, path in enumerate(self.paths) if path not in gone]
        return replace(
            self,
            paths=tuple(self.paths[item] for item in kept),
            targets=self.targets[kept],
            parts=tuple(self.parts[item] for item in kept),
        )

    def spec(self, test_folds: Sequence[str] | None = None, metrics: tuple[str, ...] | None = None) -> TaskSpec:
        """Return targets, splits and metrics.

        Args:
            test_folds: the folds to test on; None: each in turn. A data set with a test split has no folds.
            metrics: that replace the data set's own.

        Raises:
            ConfigError: a file is listed twice or in no split; a split has no files to fit or to test; a metric does
                not fit the kind of task; or a value or split has a name that cannot be a column of the scores.
        """
        twice = [str(path) for path, times in Counter(self.paths).items() if times > 1]
        if twice:
            raise ConfigError(f"{count(twice, 'file')} listed more than once: {first(twice)}")
        metrics = metrics or self.metrics
        check(metrics, self.kind, self.labels)
        found = TaskSpec(self.kind, self.targets, self.labels, self._splits(test_folds), metrics)
        check_names(found)
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
                raise ConfigError(f"unknown split {first(strange)}; expected train, valid and test, or folds")
            if missing := [name for name in ("train", "test") if name not in names]:
                raise ConfigError(f"no file is in split {' or '.join(missing)}; found {', '.join(names)}")
            return (Split("test", *(np.flatnonzero(parts == name) for name in SPLITS)),)
        if len(names) < 2:
            raise ConfigError(
                f"all {count(parts, 'file')} are in fold {', '.join(names)}; cross-validation needs at least 2 folds"
            )
        if strange := sorted(set(test_folds or ()) - set(names)):
            raise ConfigError(f"test_folds has {strange[0]}; the folds are {', '.join(names)}")
        return tuple(
            split
            for name, split in zip(names, rotated(self.parts, test_folds), strict=True)
            if test_folds is None or name in test_folds
        )


def rotated(folds: Sequence[str], test_folds: Collection[str] | None = None) -> tuple[Split, ...]:
    """Return a split for each fold as test set; the next fold validates, as in HEAR.

    If only some folds are tested, the next of the others validates. With two folds none does, because nothing would be
    left to fit: `validation.parts` takes a tenth.

    Args:
        folds: of each example.
        test_folds: the folds to test on; None: all.
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
    """Return five folds for data without any, each group distributed evenly over them.

    Within a group the order is that of the SHA-256 of the paths: it does not depend on the order of the list, nor on
    the order of the names, in which neighbours often come from one recording.
    """

    def rank(item: int) -> tuple[str, bytes]:
        return str(groups[item]), hashlib.sha256(paths[item].encode()).digest()

    folds = [""] * len(paths)
    for place, item in enumerate(sorted(range(len(paths)), key=rank)):
        folds[item] = str(place % 5 + 1)
    return tuple(folds)


def gaps(spec: TaskSpec) -> list[str]:
    """Return a warning for each gap in the classes that affects a score.

    A class that is tested and never fitted counts as wrong predictions. It is not refused, because folds of rare
    classes have such gaps in published tasks too (some of HEAR's), and a user's quick subset would not run at all.
    """
    if spec.kind == "regression":
        return []
    has = _membership(spec)
    warnings = []

    def warn(which: Any, what: str) -> None:
        names = [
            f"{label} ({files})"
            for label, chosen, files in zip(spec.labels, which, has.sum(axis=0), strict=True)
            if chosen
        ]
        if names:
            warnings.append(f"{len(names)} of {len(spec.labels)} classes {what}: {first(names, 5)}")

    present = has.any(axis=0)
    fitted = [has[np.concatenate([split.train, split.valid])].any(axis=0) for split in spec.splits]
    tested = [has[split.test].any(axis=0) for split in spec.splits]
    warn(~present, "without any file")
    warn(np.stack([t & ~f for t, f in zip(tested, fitted, strict=True)]).any(axis=0), "tested, but not in training")
    warn(present & ~np.stack(tested).any(axis=0), "never tested")
    validated = [has[parts(spec, split)[1]].any(axis=0) for split in spec.splits]
    warn(
        np.stack([f & ~v for f, v in zip(fitted, validated, strict=True)]).any(axis=0),
        "missing from the validation examples, whose score is that of the other classes",
    )
    for split in spec.splits:
        if len(split.valid) and not measurable(spec, split.valid):
            names = ", ".join(itertools.compress(spec.labels, has[split.valid].any(axis=0)))
            warnings.append(
                f"{split.name}: all {len(split.valid)} validation examples have the same classes ({names or 'none'}); "
                "a stratified tenth of the training and validation examples is used instead"
            )
    return warnings


def _membership(spec: TaskSpec) -> np.ndarray:
    """Return (n, labels) bool: the classes of each file."""
    if spec.kind == "multilabel":
        return spec.targets
    return spec.targets[:, None] == np.arange(len(spec.labels))


def _check_split(spec: TaskSpec, split: Split) -> None:
    fit = np.concatenate([split.train, split.valid])
    for name, items in (("train", split.train), ("test", split.test)):
        if len(items) == 0:
            raise ConfigError(f"{split.name}: no file is left to {'fit' if name == 'train' else 'test'} on")
    if spec.kind == "multiclass" and len(classes := np.unique(spec.targets[fit])) < 2:
        raise ConfigError(
            f"{split.name}: all {len(fit)} files to fit are {spec.labels[classes[0]]}; expected at least 2 classes"
        )
    if len(fit) < FEWEST and not measurable(spec, split.valid):
        raise ConfigError(f"{split.name}: {count(fit, 'file')} to fit and validate; expected {FEWEST} or more")
    if spec.kind == "regression":
        for label, values in zip(spec.labels, spec.targets.T, strict=True):
            if np.ptp(values[split.test]) == 0.0:
                raise ConfigError(f"{split.name}: {label} is {values[split.test][0]:g} in all {len(split.test)} files")
