"""What a probe is validated on: the examples whose scores choose checkpoints, trials and settings."""

import numpy as np

from doppel_ray.probe.task import Split, TaskSpec

SHARE = 0.1
"""Share of the training examples that validate, where a split has no others for it."""
FEWEST = 4
"""Training examples of which a part can validate, so that two or more are left to fit on."""


def parts(questions: TaskSpec, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples to fit on and those to validate on; no test example is among either.

    They are the split's own, `train` and `valid`. Where `valid` is empty, or nothing can be measured on it, a seeded,
    stratified tenth of all that may be fitted on validates instead: the same tenth every time, with an example of every
    class that has two, and of two classes in any case.

    Raises:
        ValueError: a tenth is needed, and there are fewer than `FEWEST` examples.
    """
    if measurable(questions, split.valid):
        return split.train, split.valid
    rows = np.concatenate([split.train, split.valid])
    if len(rows) < FEWEST:
        raise ValueError(f"{split.name} has {len(rows)} examples to fit and to validate on; expected {FEWEST} or more")
    rows = np.random.default_rng(0).permutation(rows)
    held = _a_tenth(_strata(questions, rows), 2 if questions.kind == "regression" else 1)
    if not measurable(questions, rows[held]):
        targets = questions.targets[rows].reshape(len(rows), -1)
        held[np.flatnonzero((targets != targets[held][0]).any(axis=1))[:1]] = True
    return rows[~held], rows[held]


def measurable(questions: TaskSpec, rows: np.ndarray) -> bool:
    """Return whether answers about some examples can differ in worth: their targets are not all the same."""
    targets = questions.targets[rows]
    return len(targets) > 0 and bool((targets != targets[0]).any())


def _strata(questions: TaskSpec, rows: np.ndarray) -> np.ndarray:
    """Return the stratum of each example: its class, or the rarest of its labels, or for values always the same."""
    targets = questions.targets[rows]
    if questions.kind == "multiclass":
        return targets
    if questions.kind == "regression":
        return np.zeros(len(rows), dtype=np.int64)
    rarity = np.where(targets, targets.sum(axis=0), len(rows) + 1)
    return np.where(targets.any(axis=1), rarity.argmin(axis=1), -1)


def _a_tenth(strata: np.ndarray, least: int) -> np.ndarray:
    """Return (n,) bool: the first tenth of each stratum, at least `least` examples of it, but never all of it."""
    held = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        held[members[: min(max(least, round(SHARE * len(members))), len(members) - 1)]] = True
    if not held.any():  # every stratum has one example alone
        held[: max(1, round(SHARE * len(strata)))] = True
    return held
