"""How answers are scored, as the tasks' sources define it, and how far a score can be trusted.

Every metric takes weighted examples. A score is the metric with all weights 1; a bootstrap resample is the metric with
each example weighted by how often it was drawn, so that the answers are sorted once for all resamples.

`answers` are (n, labels) scores, of which only the order matters and greater means likelier; for regression (n, values)
predictions. `targets` and `labels` are those of `task.TaskSpec`. Greater is better for every metric here.
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
"""Enough for the ends of a 95 % interval to be five resamples deep."""

RESAMPLED_ANSWERS = 200_000_000
"""What `interval` may spend on one metric, in answers times resamples: a few seconds on one core."""

WEIGHTS_AT_ONCE = 400_000
"""Examples times resamples that are weighed together: few enough to stay in the processor's cache."""

Weighted = Callable[[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray], np.ndarray]
"""(answers, targets, labels, weights (n, resamples)) -> (resamples,) float64; not a number where none of the weighted
examples shows a label."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: as HEAR's task metadata spells it, where HEAR has it.
        kinds: of task that it fits.
        weighted: the metric for each column of weights.
        bounds: lowest and highest value that it can take.
    """

    name: str
    kinds: tuple[Kind, ...]
    weighted: Weighted
    bounds: tuple[float, float] = (0.0, 1.0)

    def __call__(self, answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]) -> float:
        """The metric over all examples, each counted once; not a number if it cannot be measured on them."""
        return float(self.weighted(answers, targets, labels, np.ones((len(answers), 1)))[0])


def r2(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each value, 1 − residual / total sum of squares: (values,).

    A value that is the same in every example has nothing to explain: 0.
    """
    return _r2(answers, targets, np.ones((len(answers), 1)))[0]


def _accuracy(answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Share of the examples whose likeliest class is theirs (HEAR's `top1_acc`)."""
    return _share(answers.argmax(axis=1) == targets, weights)


def _pitch(answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Accuracy where classes are MIDI notes (HEAR's `pitch_acc`)."""
    notes = _notes(labels)
    return _share(notes[answers.argmax(axis=1)] == notes[targets], weights)


def _chroma(answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Pitch accuracy that forgives the octave (HEAR's `chroma_acc`).

    HEAR takes the class number mod 12, which is the same as long as the notes have no gap; here it is the note.
    """
    chroma = _notes(labels) % 12
    return _share(chroma[answers.argmax(axis=1)] == chroma[targets], weights)


def _mean_average_precision(
    answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray
) -> np.ndarray:
    """Average precision of each label, averaged over the labels that occur (HEAR's `mAP`; Gemmeke et al., 2017).

    Average precision is the mean, over a label's examples, of the precision among all that score at least as high; it
    does not interpolate. HEAR counts a label that never occurs as 0; its tasks have none.
    """
    return _macro(
        (of.positive * of.true / np.maximum(of.true + of.false, 1.0)).sum(axis=0, dtype=np.float64)
        / of.positive.sum(axis=0)
        for of in _rankings(answers, targets, weights)
    )


def _area_under_roc(
    answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray
) -> np.ndarray:
    """Chance that an example with a label scores higher than one without, ties counted half; averaged over the labels
    that some examples have and others lack (HEAR's `aucroc`).
    """
    return _macro(
        (of.positive * (of.negatives - (of.false + of.false_above) / 2.0)).sum(axis=0)
        / (of.positive.sum(axis=0) * of.negatives)
        for of in _rankings(answers, targets, weights)
    )


def _d_prime(answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """√2 Φ⁻¹ of the macro area under the ROC curve (AudioSet's: Hershey et al., 2017; Gemmeke et al., 2017).

    HEAR's `d_prime` averages over the labels after Φ⁻¹ instead of before, and so is infinite as soon as one label is
    ranked without a mistake. Here the area is kept 1e-9 away from 0 and 1: d' stays within ±8.5, which JSON can hold.
    """
    areas = np.clip(_area_under_roc(answers, targets, labels, weights), 1e-9, 1.0 - 1e-9)
    quantile = NormalDist().inv_cdf
    return math.sqrt(2.0) * np.array([math.nan if math.isnan(area) else quantile(area) for area in areas.tolist()])


def _mean_r2(answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Mean of R² over the values."""
    return _r2(answers, targets, weights).mean(axis=1)


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
"""accuracy and top1_acc are one metric under two names, and so are score and r2."""


def check(metrics: Sequence[str], kind: Kind, labels: Collection[str] | None = None) -> None:
    """Refuse metrics that a task cannot be scored by.

    Args:
        metrics: names.
        kind: of the task.
        labels: of the task, if they are known already; pitch_acc and chroma_acc need MIDI notes.

    Raises:
        ConfigError: names the metric, and what is allowed.
    """
    allowed = [name for name, metric in METRICS.items() if kind in metric.kinds]
    if not metrics:
        raise ConfigError(f"metrics: there is none; a {kind} task has {', '.join(allowed)}")
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
        raise ConfigError(f"metrics: one is named twice in {', '.join(metrics)}")


def interval(
    metric: Metric,
    answers: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    labels: tuple[str, ...],
    pooled: bool = False,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % bootstrap interval of a score over its test examples (Efron and Tibshirani, 1993).

    Examples are drawn again within each split, and the metric is averaged over the splits as the score is. The interval
    is about the choice of test examples; that of training examples, and the encoder's luck, are not in it.

    It goes from the 2.5th to the 97.5th percentile of the resamples, moved so that their mean lies on the score. For
    accuracy the two agree anyway; average precision comes out higher on resamples, where an example of a rare label
    stands beside its own copies, so much that plain percentiles can miss the score.

    Args:
        metric: what to resample.
        answers: of each split's test examples.
        targets: of each split's test examples.
        labels: of the task.
        pooled: the metric is taken over all splits' examples together, instead of averaged.
        seed: of the draws.

    Returns:
        (low, high) from 1000 resamples; from fewer, down to 200, where answers times resamples would exceed
        `RESAMPLED_ANSWERS` (1,000 examples of 200 labels still get 1000, 10,000 of them 200).
    """

    def measure(weights: list[np.ndarray]) -> np.ndarray:
        if pooled:
            return metric.weighted(np.concatenate(answers), np.concatenate(targets), labels, np.concatenate(weights))
        parts = [metric.weighted(a, t, labels, w) for a, t, w in zip(answers, targets, weights, strict=True)]
        return np.mean(parts, axis=0)

    rng = np.random.default_rng(seed)
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, RESAMPLED_ANSWERS // sum(one.size for one in answers)))
    at_once = max(1, WEIGHTS_AT_ONCE // sum(map(len, answers)))
    values: list[float] = []
    while len(values) < resamples:
        count = min(resamples - len(values), at_once)
        values.extend(measure([_resample(rng, len(one), count) for one in answers]))
    # A resample of a tiny test set can miss every label.
    found = np.array([value for value in values if math.isfinite(value)])
    if not found.size:
        return math.nan, math.nan
    bias = found.mean() - measure([np.ones((len(one), 1)) for one in answers])[0]
    low, high = np.clip(np.percentile(found, [2.5, 97.5]) - bias, *metric.bounds)
    return float(low), float(high)


def _resample(rng: np.random.Generator, examples: int, count: int) -> np.ndarray:
    """How often each example is drawn in each of `count` resamples: (examples, count) float32, which holds counts
    exactly up to 2²⁴ and halves the time.
    """
    drawn = rng.integers(examples, size=(count, examples)) + examples * np.arange(count)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=count * examples).reshape(count, examples)
    return np.ascontiguousarray(counts.T, dtype=np.float32)


@dataclass(frozen=True)
class _Ranking:
    """The examples of one label, each with the weight of what scores above it.

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


def _rankings(answers: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Iterator[_Ranking]:
    """Of each label that occurs. A multiclass task is asked about each of its classes, as if it were a label."""
    for label in range(answers.shape[1]):
        has = targets == label if targets.ndim == 1 else targets[:, label].astype(bool)
        if not has.any():
            continue
        order = np.argsort(-answers[:, label], kind="stable")
        scores, positions = answers[order, label], np.flatnonzero(has[order])
        # Examples with one score are one step of the curve: each sees all of its step.
        first = np.append(True, scores[1:] != scores[:-1])
        step = np.cumsum(first) - 1
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(scores)) - 1
        step = step[positions]

        # In front of both sums, a row of zeros: what lies above the first example.
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
    """Mean over labels, for each resample over those that occur in it; not a number where none does."""
    total, count = np.zeros(1), np.zeros(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for value in values:
            measured = np.isfinite(value)
            total, count = total + np.where(measured, value, 0.0), count + measured
        return total / count


def _share(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return right.astype(np.float64) @ weights / weights.sum(axis=0, dtype=np.float64)


def _r2(answers: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resamples, values)."""
    # Around the plain mean, so that the weighted variance is no small difference of large squares.
    centred = targets - targets.mean(axis=0)
    share = (weights / weights.sum(axis=0, dtype=np.float64)).T
    residual = share @ (targets - answers) ** 2
    total = share @ centred**2 - (share @ centred) ** 2
    varied = total > 1e-12 * np.maximum(centred.var(axis=0), np.finfo(np.float64).tiny)
    return np.where(varied, 1.0 - residual / np.where(varied, total, 1.0), 0.0)


def _notes(labels: Collection[str]) -> np.ndarray:
    """MIDI note of each class.

    Raises:
        ValueError: a label is no whole number.
    """
    strange = [label for label in labels if not label.strip().lstrip("-").isdecimal()]
    if strange:
        raise ValueError(f"label {strange[0]!r} is no MIDI note, such as '60'")
    return np.array([int(label) for label in labels])
