"""Metrics agree with their sources, and intervals have the coverage that they claim."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from doppel_ray.core.errors import ConfigError
from doppel_ray.probe.metrics import METRICS, Metric, check, interval, r2

NOTES = ("60", "61", "72", "85")


def ranked(seed: int, examples: int = 200, labels: int = 7, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.random((examples, labels)) < np.linspace(0.05, 0.6, labels)
    predictions = targets + 1.5 * rng.standard_normal((examples, labels))
    return (np.round(predictions) if ties else predictions), targets


def names(predictions: np.ndarray) -> tuple[str, ...]:
    return tuple(map(str, range(predictions.shape[1])))


def test_accuracy() -> None:
    predictions = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.4, 0.6, 0.0], [0.1, 0.2, 0.7]])
    assert METRICS["accuracy"](predictions, np.array([0, 1, 1, 2]), ("a", "b", "c")) == 0.75
    assert METRICS["top1_acc"](predictions, np.array([0, 1, 1, 2]), ("a", "b", "c")) == 0.75


def test_chroma_ignores_octaves() -> None:
    predictions = np.eye(4)[[0, 1, 2, 3]]
    targets = np.array([2, 3, 2, 0])  # 60 for 72: an octave; 61 for 85: two; 72 for 72; 85 for 60: wrong
    assert METRICS["pitch_acc"](predictions, targets, NOTES) == 0.25
    assert METRICS["chroma_acc"](predictions, targets, NOTES) == 0.75


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_and_auc_agree_with_scikit_learn(ties: bool) -> None:
    predictions, targets = ranked(0, ties=ties)
    assert METRICS["mAP"](predictions, targets, names(predictions)) == pytest.approx(
        average_precision_score(targets, predictions), abs=1e-12
    )
    area = roc_auc_score(targets, predictions)
    assert METRICS["aucroc"](predictions, targets, names(predictions)) == pytest.approx(area, abs=1e-12)
    assert METRICS["d_prime"](predictions, targets, names(predictions)) == pytest.approx(math.sqrt(2) * norm.ppf(area))


def test_classes_are_ranked_like_labels() -> None:
    predictions, _ = ranked(1)
    classes = np.arange(200) % 7
    for name in ("mAP", "aucroc", "d_prime"):
        assert METRICS[name](predictions, classes, names(predictions)) == METRICS[name](
            predictions, np.eye(7, dtype=bool)[classes], names(predictions)
        )


def test_absent_labels_are_left_out() -> None:
    predictions, targets = ranked(2)
    targets[:, 3] = False
    rest = [0, 1, 2, 4, 5, 6]
    for name in ("mAP", "aucroc"):
        expected = METRICS[name](predictions[:, rest], targets[:, rest], names(predictions[:, rest]))
        assert METRICS[name](predictions, targets, names(predictions)) == pytest.approx(expected)
    assert math.isnan(METRICS["mAP"](predictions, np.zeros_like(targets), names(predictions)))


def test_d_prime_of_perfect_ranking_is_finite() -> None:
    _, targets = ranked(3)
    assert METRICS["mAP"](targets.astype(float), targets, names(targets)) == 1.0
    assert 8.0 < METRICS["d_prime"](targets.astype(float), targets, names(targets)) < 9.0


def test_r2_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    targets = 1e4 + rng.standard_normal((50, 3))
    predictions = targets + rng.standard_normal((50, 3)) * [0.1, 1.0, 3.0]
    expected = r2_score(targets, predictions, multioutput="raw_values")
    assert r2(predictions, targets) == pytest.approx(expected)
    assert METRICS["score"](predictions, targets, ("a", "b", "c")) == pytest.approx(expected.mean())
    assert r2(np.zeros((4, 1)), np.full((4, 1), 0.1))[0] == 0.0


@pytest.mark.parametrize("name", ["mAP", "aucroc", "d_prime", "accuracy", "score"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), ties=st.booleans())
def test_weight_equals_copies(name: str, seed: int, ties: bool) -> None:
    """What the bootstrap rests on."""
    predictions, targets = ranked(seed, examples=30, ties=ties)
    found = targets.argmax(axis=1) if name == "accuracy" else targets * 2.0 if name == "score" else targets
    weights = np.random.default_rng(seed).integers(0, 3, 30)
    copies = np.repeat(np.arange(30), weights)
    weighted = METRICS[name].weighted(predictions, found, names(predictions), weights[:, None].astype(np.float64))[0]
    assert weighted == pytest.approx(METRICS[name](predictions[copies], found[copies], names(predictions)), nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
def test_only_order_of_predictions_matters(seed: int, scale: float) -> None:
    predictions, targets = ranked(seed, examples=30)
    for name in ("mAP", "aucroc"):
        bent = np.exp(scale * predictions / 10.0)
        assert METRICS[name](bent, targets, names(bent)) == METRICS[name](predictions, targets, names(predictions))


def test_interval_coverage() -> None:
    """300 test sets of 150 examples that are right seven times in ten; a miss or two in a hundred is luck."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        predictions = np.eye(2)[(rng.random(150) < 0.7).astype(int)]
        low, high = interval(METRICS["accuracy"], np.split(predictions, 3), [np.ones(50, int)] * 3, ("a", "b"))
        held += low <= 0.7 <= high
    assert 0.90 <= held / 300 <= 0.98


@pytest.mark.parametrize("name", ["mAP", "aucroc", "d_prime"])
def test_interval_contains_score_with_rare_labels(name: str) -> None:
    predictions, targets = ranked(6, examples=300, labels=20)
    targets[:] = np.random.default_rng(6).random(targets.shape) < 0.02
    low, high = interval(METRICS[name], [predictions], [targets], names(predictions))
    assert low < METRICS[name](predictions, targets, names(predictions)) < high
    assert (low, high) == interval(METRICS[name], [predictions], [targets], names(predictions))


@pytest.mark.parametrize(("examples", "labels", "resamples"), [(400, 10, 1000), (2000, 200, 500), (10_000, 200, 200)])
def test_fewer_resamples_for_many_predictions(examples: int, labels: int, resamples: int) -> None:
    counted = []

    def count(predictions: np.ndarray, targets: np.ndarray, names: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
        counted.append(weights.shape[1])
        return weights.mean(axis=0)

    predictions = np.zeros((examples, labels))
    interval(Metric("none", ("multilabel",), count), [predictions], [predictions], names(predictions))
    assert sum(counted[:-1]) == resamples  # the last is the score itself


def test_interval_of_perfect_predictions() -> None:
    assert interval(METRICS["accuracy"], [np.eye(3)], [np.arange(3)], ("a", "b", "c")) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("metrics", "kind", "labels", "said"),
    [
        (("acuracy",), "multiclass", None, "did you mean accuracy"),
        (("accuracy", "mAP"), "multilabel", None, "'accuracy' is for multiclass tasks; a multilabel task has mAP"),
        (("mAP",), "regression", None, "a regression task has score, r2"),
        ((), "multiclass", None, "metrics is empty; a multiclass task has accuracy"),
        (("mAP", "mAP"), "multilabel", None, "duplicate in"),
        (("chroma_acc",), "multiclass", ("60", "C4"), "'C4' is not a MIDI note"),
    ],
)
def test_unfit_metric_is_refused(metrics, kind, labels, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=said):
        check(metrics, kind, labels)


def test_fitting_metrics_are_accepted() -> None:
    check(("mAP", "aucroc", "d_prime"), "multilabel", ("dog",))
    check(("pitch_acc", "chroma_acc"), "multiclass", NOTES)
