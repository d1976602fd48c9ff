"""Metrics, as the tasks' sources define them, and their bootstrap intervals.

Every metric takes weighted examples. A score is the metric with all weights 1; a bootstrap resample is the metric with
each example weighted by the number of times it was drawn: predictions are sorted once for all resamples.

`predictions` are (n, labels) scores, of which only the order matters (greater: likelier); for regression (n, values).
`targets` and `labels` are those of `task.TaskSpec`. Greater is better for every metric here.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from doppel_ray.core.dotted_keys import suggestion
from doppel_ray.core.errors import ConfigError
from doppel_ray.probe.task import Kind

RESAMPLES = 1000
FEWEST_RESAMPLES = 200
"""Enough to leave five resamples outside each end of a 95 % interval."""

RESAMPLED_PREDICTIONS = 200_000_000
"""Largest product of predictions and resamples for one metric: a few seconds on one core."""

WEIGHTS_AT_ONCE = 400_000
"""Largest product of examples and resamples in one pass: it fits the processor's cache."""

Weighted = Callable[[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray], np.ndarray]
"""(predictions, targets, labels, weights (n, resamples)) -> (resamples,) float64; NaN where none of the weighted
examples has a label."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: as HEAR's task metadata spells it, where HEAR has it.
        kinds: of task that it applies to.
        weighted: the metric for each column of weights.
        bounds: lowest and highest value that it can take.
    """

    name: str
    kinds: tuple[Kind, ...]
    weighted: Weighted
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]) -> float:
        """Return the metric over all examples, each counted once; NaN if it cannot be measured on them."""
        return float(self.weighted(predictions, targets, labels, np.ones((len(predictions), 1)))[0])


def r2(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the coefficient of determination of each value, 1 − residual / total sum of squares: (values,).

    It is 0 for a value that is the same in every example.
    """
    return _r2(predictions, targets, np.ones((len(predictions), 1)))[0]


def _accuracy(predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Return the share of examples whose likeliest class is right (HEAR's `top1_acc`)."""
    return _share(predictions.argmax(axis=1) == targets, weights)


def _pitch(predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Return the accuracy of classes that are MIDI notes (HEAR's `pitch_acc`)."""
    notes = _notes(labels)
    return _share(notes[predictions.argmax(axis=1)] == notes[targets], weights)


def _chroma(predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Return the pitch accuracy modulo octaves (HEAR's `chroma_acc`).

    HEAR takes the class number mod 12, which is the same if the notes have no gap; here it is the note.
    """
    chroma = _notes(labels) % 12
    return _share(chroma[predictions.argmax(axis=1)] == chroma[targets], weights)


def _mean_average_precision(
    predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray
) -> np.ndarray:
    """Return the average precision of the labels that occur (HEAR's `mAP`; Gemmeke et al., 2017).

    Average precision is the mean, over a label's examples, of the precision among all that score at least as high,
    without interpolation. HEAR counts a label that never occurs as 0; its tasks have none.
    """
    return _macro(
        (of.positive * of.true / np.maximum(of.true + of.false, 1.0)).sum(axis=0, dtype=np.float64)
        / of.positive.sum(axis=0)
        for of in _rankings(predictions, targets, weights)
    )


def _area_under_roc(
    predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray
) -> np.ndarray:
    """Return the area under the ROC curve, ties counted half, averaged over the labels that some examples have and
    others lack (HEAR's `aucroc`).
    """
    return _macro(
        (of.positive * (of.negatives - (of.false + of.false_above) / 2.0)).sum(axis=0)
        / (of.positive.sum(axis=0) * of.negatives)
        for of in _rankings(predictions, targets, weights)
    )


def _d_prime(predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Return √2 Φ⁻¹ of the macro area under the ROC curve (AudioSet's: Hershey et al., 2017; Gemmeke et al., 2017).

    HEAR's `d_prime` averages over the labels after Φ⁻¹, and so is infinite if one label is ranked without a mistake.
    Here the area is clipped to 1e-9 from 0 and 1: d' stays within ±8.5, which JSON can hold.
    """
    areas = np.clip(_area_under_roc(predictions, targets, labels, weights), 1e-9, 1.0 - 1e-9)
    quantile = NormalDist().inv_cdf
    return math.sqrt(2.0) * np.array([math.nan if math.isnan(area) else quantile(area) for area in areas.tolist()])


def _mean_r2(predictions: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Return the mean of R² over the values."""
    return _r2(predictions, targets, weights).mean(axis=1)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", ("multiclass",), _accuracy),
        Metric("top1_acc", ("multiclass",), _accuracy),
        Metric("mAP", ("multiclass", "multilabel"), _mean_average_precision),
        Metric("d_prime", ("multiclass", "multilabel"), _d_prime, (-math.inf, math.inf)),
        Metric("aucroc", ("multiclass", "multilabel"), _area_under_roc),
        Metric("pitch_acc", ("multiclass",), _pitch),
        Metric("chroma_acc", ("multiclass",), _chroma),
        Metric("score", ("regression",), _mean_r2, (-math.inf, 1.0)),
        Metric("r2", ("regression",), _mean_r2, (-math.inf, 1.0)),
    )
}
"""Name -> metric; accuracy and top1_acc are the same, and so are score and r2."""


def check(metrics: Sequence[str], kind: Kind, labels: Collection[str] | None = None) -> None:
    """Check that a task can be scored by metrics.

    Args:
        metrics: names.
        kind: of the task.
        labels: of the task, if known; pitch_acc and chroma_acc need MIDI notes.

    Raises:
        ConfigError: names the metric and the allowed ones.
    """
    allowed = [name for name, metric in METRICS.items() if kind in metric.kinds]
    if not metrics:
        raise ConfigError(f"metrics is empty; a {kind} task has {', '.join(allowed)}")
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(
                f"metrics: there is no {name!r}; a {kind} task has {', '.join(allowed)}{suggestion(name, allowed)}"
            )
        if name not in allowed:
            raise ConfigError(
                f"metrics: {name!r} is for {' and '.join(METRICS[name].kinds)} tasks; "
                f"a {kind} task has {', '.join(allowed)}"
            )
        if labels is not None and name in ("pitch_acc", "chroma_acc"):
            try:
                _notes(labels)
            except ValueError as error:
                raise ConfigError(f"metrics: {name!r}: {error}") from None
    if len(set(metrics)) < len(metrics):
        raise ConfigError(f"metrics: duplicate in {', '.join(metrics)}")


def interval(
    metric: Metric,
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    labels: tuple[str, ...],
    pooled: bool = False,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a score over its test examples (Efron and Tibshirani, 1993).

    Examples are resampled within each split, and the metric is averaged over the splits like the score. The interval
    covers the choice of test examples, not that of training examples nor the encoder's seed.

    It spans the 2.5th to the 97.5th percentile of the resamples, shifted so that their mean equals the score. Without
    the shift it can miss the score: average precision is higher on resamples, where an example of a rare label is
    ranked next to its copies. For accuracy the shift is about 0.

    Args:
        metric: what to resample.
        predictions: of each split's test examples.
        targets: of each split's test examples.
        labels: of the task.
        pooled: take the metric over all splits' examples together instead of averaging.
        seed: of the draws.

    Returns:
        (low, high) from 1000 resamples; from fewer, down to 200, if predictions times resamples would exceed
        `RESAMPLED_PREDICTIONS` (1,000 examples of 200 labels still get 1000, 10,000 of them 200).
    """

    def measure(weights: list[np.ndarray]) -> np.ndarray:
        if pooled:
            return metric.weighted(
                np.concatenate(predictions), np.concatenate(targets), labels, np.concatenate(weights)
            )
        parts = [metric.weighted(a, t, labels, w) for a, t, w in zip(predictions, targets, weights, strict=True)]
        return np.mean(parts, axis=0)

    rng = np.random.default_rng(seed)
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, RESAMPLED_PREDICTIONS // sum(one.size for one in predictions)))
    at_once = max(1, WEIGHTS_AT_ONCE // sum(map(len, predictions)))
    values: list[float] = []
    while len(values) < resamples:
        count = min(resamples - len(values), at_once)
        values.extend(measure([_resample(rng, len(one), count) for one in predictions]))
    # A resample of a tiny test set can miss every label.
    found = np.array([value for value in values if math.isfinite(value)])
    if not found.size:
        return math.nan, math.nan
    bias = found.mean() - measure([np.ones((len(one), 1)) for one in predictions])[0]
    low, high = np.clip(np.percentile(found, [2.5, 97.5]) - bias, *metric.bounds)
    return float(low), float(high)


def _resample(rng: np.random.Generator, examples: int, count: int) -> np.ndarray:
    """Return the number of times each example is drawn in each of `count` resamples: (examples, count) float32, which
    is exact up to 2²⁴ and takes half the time of float64.
    """
    drawn = rng.integers(examples, size=(count, examples)) + examples * np.arange(count)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=count * examples).reshape(count, examples)
    return np.ascontiguousarray(counts.T, dtype=np.float32)


@dataclass(frozen=True)
class _Ranking:
    """The examples of one label, each with the weight of those that score above it.

    Attributes:
        positive: (positives, resamples) weight of each example that has the label.
        true: (positives, resamples) weight of the examples with the label that score at least as high.
        false: (positives, resamples) weight of those without it that score at least as high.
        false_above: (positives, resamples) weight of those without it that score higher.
        negatives: (resamples,) weight of all those without it.
    """

    positive: np.ndarray
    true: np.ndarray
    false: np.ndarray
    false_above: np.ndarray
    negatives: np.ndarray


def _rankings(predictions: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Iterator[_Ranking]:
    """Yield the ranking of each label that occurs; the classes of a multiclass task count as labels."""
    for label in range(predictions.shape[1]):
        has = targets == label if targets.ndim == 1 else targets[:, label].astype(bool)
        if not has.any():
            continue
        order = np.argsort(-predictions[:, label], kind="stable")
        scores, positions = predictions[order, label], np.flatnonzero(has[order])
        # Examples with equal scores form one step of the curve.
        first = np.append(True, scores[1:] != scores[:-1])
        step = np.cumsum(first) - 1
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(scores)) - 1
        step = step[positions]

        # A row of zeros comes before both sums: nothing is above the first example.
        above = np.zeros((len(order) + 1, weights.shape[1]), weights.dtype)
        np.cumsum(weights[order], axis=0, out=above[1:])
        true_above = np.zeros((len(positions) + 1, weights.shape[1]), weights.dtype)
        positive = weights[order[positions]]
        np.cumsum(positive, axis=0, out=true_above[1:])

        true = true_above[np.searchsorted(step, step, side="right")]
        yield _Ranking(
            positive=positive,
            true=true,
            false=above[ends[step] + 1] - true,
            false_above=above[starts[step]] - true_above[np.searchsorted(step, step, side="left")],
            negatives=(above[-1] - true_above[-1]).astype(np.float64),
        )


def _macro(values: Iterator[np.ndarray]) -> np.ndarray:
    """Return the mean over the labels that occur in each resample; NaN where none does."""
    total, count = np.zeros(1), np.zeros(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for value in values:
            measured = np.isfinite(value)
            total, count = total + np.where(measured, value, 0.0), count + measured
        return total / count


def _share(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return right.astype(np.float64) @ weights / weights.sum(axis=0, dtype=np.float64)


def _r2(predictions: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return R² as (resamples, values)."""
    # Centred by the plain mean, so that the weighted variance is not a small difference of large squares.
    centred = targets - targets.mean(axis=0)
    share = (weights / weights.sum(axis=0, dtype=np.float64)).T
    residual = share @ (targets - predictions) ** 2
    total = share @ centred**2 - (share @ centred) ** 2
    varied = total > 1e-12 * np.maximum(centred.var(axis=0), np.finfo(np.float64).tiny)
    return np.where(varied, 1.0 - residual / np.where(varied, total, 1.0), 0.0)


def _notes(labels: Collection[str]) -> np.ndarray:
    """Return the MIDI note of each class.

    Raises:
        ValueError: a label is not an integer.
    """
    strange = [label for label in labels if not label.strip().lstrip("-").isdecimal()]
    if strange:
        raise ValueError(f"label {strange[0]!r} is not a MIDI note, such as '60'")
    return np.array([int(label) for label in labels])
