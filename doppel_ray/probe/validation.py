"""The validation examples of a split, whose scores choose checkpoints, trials and settings."""

import numpy as np

from doppel_ray.probe.task import Split, TaskSpec

SHARE = 0.1
"""Share of the training examples used for validation if a split has no validation examples."""
FEWEST = 4
"""Fewest training examples that can be divided, so that two or more are left to fit."""


def parts(spec: TaskSpec, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples to fit and those to validate, neither with a test example.

    They are the split's `train` and `valid`. If `valid` is empty, or nothing can be measured on it, the validation
    examples are a seeded, stratified tenth of both together: the same tenth every time, with an example of every class
    that has two, and of at least two classes.

    Raises:
        ValueError: a tenth is needed, and there are fewer than `FEWEST` examples.
    """
    if measurable(spec, split.valid):
        return split.train, split.valid
    rows = np.concatenate([split.train, split.valid])
    if len(rows) < FEWEST:
        raise ValueError(f"{split.name} has {len(rows)} examples to fit and validate; expected {FEWEST} or more")
    rows = np.random.default_rng(0).permutation(rows)
    held = _a_tenth(_strata(spec, rows), 2 if spec.kind == "regression" else 1)
    if not measurable(spec, rows[held]):
        targets = spec.targets[rows].reshape(len(rows), -1)
        held[np.flatnonzero((targets != targets[held][0]).any(axis=1))[:1]] = True
    return rows[~held], rows[held]


def measurable(spec: TaskSpec, rows: np.ndarray) -> bool:
    """Return whether a score on some examples is defined: their targets are not all the same."""
    targets = spec.targets[rows]
    return len(targets) > 0 and bool((targets != targets[0]).any())


def _strata(spec: TaskSpec, rows: np.ndarray) -> np.ndarray:
    """Return the stratum of each example: its class, the rarest of its labels, or for values one stratum."""
    targets = spec.targets[rows]
    if spec.kind == "multiclass":
        return targets
    if spec.kind == "regression":
        return np.zeros(len(rows), dtype=np.int64)
    rarity = np.where(targets, targets.sum(axis=0), len(rows) + 1)
    return np.where(targets.any(axis=1), rarity.argmin(axis=1), -1)


def _a_tenth(strata: np.ndarray, least: int) -> np.ndarray:
    """Return (n,) bool: the first tenth of each stratum, at least `least` examples, but never the whole stratum."""
    held = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        held[members[: min(max(least, round(SHARE * len(members))), len(members) - 1)]] = True
    if not held.any():  # every stratum has a single example
        held[: max(1, round(SHARE * len(strata)))] = True
    return held
