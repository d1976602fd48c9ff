"""Linear probes learn what is there, and nothing that is not."""

import numpy as np
import pytest

from doppel_ray.probe import fit

FOLDS = np.arange(200) % 5


def embeddings(size: int = 40) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, size)).astype(np.float32)


def test_classes_that_are_there_are_found() -> None:
    classes = np.arange(200) // 5 % 4
    vectors = embeddings() + 5.0 * np.eye(40, dtype=np.float32)[classes]
    scores = fit.classify(vectors, classes, FOLDS)
    assert scores["accuracy"] > 0.9
    assert sorted(scores) == ["accuracy", *(f"fold_{k}" for k in range(5))]
    assert scores["accuracy"] == pytest.approx(np.mean([scores[f"fold_{k}"] for k in range(5)]))


def test_shuffled_labels_score_near_chance() -> None:
    """200 vectors of 400 numbers can be fitted perfectly: a score above chance would mean that a test label leaked."""
    classes = np.random.default_rng(1).permutation(np.arange(200) % 4)
    assert abs(fit.classify(embeddings(400), classes, FOLDS)["accuracy"] - 0.25) < 0.12


def test_the_scaler_and_the_model_see_nothing_of_the_test_fold() -> None:
    """Wild vectors of a class of their own join one fold: its other predictions stay as they were."""
    classes = np.arange(200) // 5 % 4
    vectors = embeddings() + np.eye(40, dtype=np.float32)[classes]
    before = fit.classify(vectors, classes, FOLDS)["fold_0"] * 40
    wild = 1e6 * np.ones((10, 40), np.float32)
    after = fit.classify(
        np.concatenate([vectors, wild]),
        np.concatenate([classes, np.full(10, 9)]),
        np.concatenate([FOLDS, np.zeros(10)]),
    )
    assert after["fold_0.0"] * 50 == pytest.approx(before)


def test_values_that_are_there_are_found_each_on_its_own_scale() -> None:
    vectors = embeddings()
    noise = np.random.default_rng(2).standard_normal(200)
    targets = {
        "hz": 1000.0 + 300.0 * vectors[:, 0].astype(np.float64),
        "level": 1e-3 * vectors[:, 1].astype(np.float64),
        "none": noise,
    }
    scores = fit.regress(vectors, targets, FOLDS)
    assert scores["hz"] > 0.95
    assert scores["level"] > 0.95
    assert scores["none"] < 0.1
    assert scores["score"] == pytest.approx(np.mean([scores[name] for name in targets]))


def test_shuffled_values_are_not_predicted() -> None:
    values = np.random.default_rng(3).standard_normal(200)
    assert fit.regress(embeddings(400), {"value": values}, FOLDS)["score"] < 0.05


def test_a_named_fold_alone_is_tested_on() -> None:
    rng = np.random.default_rng(0)
    folds, classes = np.arange(60) % 5, np.arange(60) // 6 % 2
    scores = fit.classify(rng.standard_normal((60, 4)) + classes[:, None], classes, folds, test_folds=(3,))
    assert scores.keys() == {"accuracy", "fold_3"}
    assert scores["accuracy"] == scores["fold_3"]
