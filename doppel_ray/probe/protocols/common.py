"""What the protocols share: standardised embeddings, targets as columns, bounded predictions, checked metrics."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from doppel_ray.probe.metrics import Metric
from doppel_ray.probe.task import TaskSpec


@dataclass(frozen=True)
class Predictions:
    """Predictions for one split.

    Attributes:
        test: for its test examples.
        valid: for `rows`, by a probe that was not fitted on them.
        rows: the validation examples.
    """

    test: np.ndarray
    valid: np.ndarray
    rows: np.ndarray


def standardised(fitted: np.ndarray, *others: np.ndarray) -> Iterator[np.ndarray]:
    """Scale `fitted` and `others` by the mean and deviation of `fitted`; a dimension without variance becomes 0."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(fitted)
    return (scaler.transform(rows) for rows in (fitted, *others))


def bounded(predictions: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Clip predicted values to the range of the fitted values, extended by its width at both ends.

    With fewer examples than dimensions, a direction that hardly varies in training can carry a test example arbitrarily
    far, and R² squares the error. No sensible prediction reaches the bound.
    """
    low, high = fitted.min(axis=0), fitted.max(axis=0)
    return np.clip(predictions, low - (high - low), high + (high - low))


def target_columns(spec: TaskSpec) -> np.ndarray:
    """Return the targets with a column for each label, classes one-hot: (n, labels) float64."""
    if spec.kind == "multiclass":
        return np.eye(len(spec.labels))[spec.targets]
    return spec.targets.astype(np.float64)


def measured(
    metric: Metric, predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], where: str
) -> float:
    """Return a metric.

    Raises:
        ValueError: it is not finite; `where` names the examples.
    """
    value = metric(predictions, targets, labels)
    if not math.isfinite(value):
        raise ValueError(
            f"{metric.name} cannot be measured on {where}: none of its labels is on some and not on others"
        )
    return value


def on_validation(metric: Metric, predictions: np.ndarray, spec: TaskSpec, rows: np.ndarray, split: str) -> float:
    """Return a metric on validation examples, without the labels that all of them have or none."""
    targets, labels = spec.targets[rows], spec.labels
    if spec.kind == "multilabel":
        varied = targets.any(axis=0) & ~targets.all(axis=0)
        predictions, targets = predictions[:, varied], targets[:, varied]
        labels = tuple(itertools.compress(labels, varied))
    return measured(metric, predictions, targets, labels, f"the validation examples of {split}")
