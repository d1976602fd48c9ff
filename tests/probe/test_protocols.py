"""Probes find what embeddings contain and nothing else."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from doppel_ray.core.errors import ConfigError
from doppel_ray.probe import validation
from doppel_ray.probe.protocols import ProtocolConfig, common, mlp, predict, score_embeddings
from doppel_ray.probe.task import Kind, Split, TaskSpec

LINEAR = ProtocolConfig()
MLP = ProtocolConfig(kind="mlp", grid_points=1, max_epochs=15, seed=1)
KNN = ProtocolConfig(kind="knn")
ALL = pytest.mark.parametrize("protocol", [LINEAR, MLP, KNN], ids=lambda protocol: protocol.kind)

METRICS: dict[Kind, tuple[str, ...]] = {
    "multiclass": ("accuracy", "mAP"),
    "multilabel": ("mAP", "d_prime"),
    "regression": ("score",),
}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEAR's networks of 1024, and 500 epochs of one batch each, take twenty times as long to say the same."""
    monkeypatch.setattr(mlp, "HIDDEN", 64)
    monkeypatch.setattr(mlp, "BATCH", 32)


def folds(n: int, count: int = 5) -> tuple[Split, ...]:
    """Fold k tests, the next one validates, the others train."""
    of = np.arange(n) % count
    return tuple(
        Split(
            f"fold_{k}",
            train=np.flatnonzero((of != k) & (of != (k + 1) % count)),
            valid=np.flatnonzero(of == (k + 1) % count),
            test=np.flatnonzero(of == k),
        )
        for k in range(count)
    )


def make_spec(kind: Kind, targets: np.ndarray, splits: Sequence[Split] = (), labels: int | None = None) -> TaskSpec:
    count = labels or (int(targets.max()) + 1 if kind == "multiclass" else targets.shape[1])
    named = tuple(f"label {k}" for k in range(count))
    return TaskSpec(kind, targets, named, tuple(splits) or folds(len(targets)), METRICS[kind])


def embeddings(n: int = 200, size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)


def classes(n: int = 200) -> np.ndarray:
    return np.arange(n) // 5 % 4


@pytest.mark.slow
@ALL
def test_linearly_separable_classes(protocol: ProtocolConfig) -> None:
    vectors = embeddings(size=8) + 5.0 * np.eye(8, dtype=np.float32)[classes()]
    scores = score_embeddings(protocol, vectors, make_spec("multiclass", classes()))
    assert list(scores) == [
        *("accuracy", "mAP", "accuracy_low", "accuracy_high", "accuracy_valid", "mAP_valid"),
        *(f"fold_{k}" for k in range(5)),
    ]
    for name in ("accuracy", "mAP"):
        assert scores[name] > 0.9
        assert scores[f"{name}_valid"] > 0.85
    assert scores["accuracy"] == pytest.approx(np.mean([scores[f"fold_{k}"] for k in range(5)]))
    assert scores["accuracy_low"] <= scores["accuracy"] <= scores["accuracy_high"]


@ALL
def test_linearly_separable_labels(protocol: ProtocolConfig) -> None:
    vectors = embeddings(size=20)
    scores = score_embeddings(protocol, vectors, make_spec("multilabel", vectors[:, :5] > 0.5, folds(200)[:1]))
    assert list(scores) == ["mAP", "d_prime", "mAP_low", "mAP_high", "mAP_valid", "d_prime_valid"]
    assert scores["mAP"] > (0.5 if protocol is KNN else 0.75)  # chance is 0.3


@ALL
def test_linear_values_on_different_scales(protocol: ProtocolConfig) -> None:
    vectors = embeddings(size=4)
    hz, level = 1000.0 + 300.0 * vectors[:, 0], 1e-3 * vectors[:, 1]
    targets = np.stack([hz, level, np.random.default_rng(2).standard_normal(200)], axis=1).astype(np.float64)
    longer = protocol.model_copy(update={"max_epochs": 30})
    scores = score_embeddings(longer, vectors, make_spec("regression", targets))
    assert list(scores) == ["score", "score_low", "score_high", "score_valid", "label 0", "label 1", "label 2"]
    enough = 0.95 if protocol is LINEAR else 0.5
    assert scores["label 0"] > enough
    assert scores["label 1"] > enough
    assert scores["label 2"] < 0.1
    assert scores["score"] == pytest.approx(np.mean([scores[f"label {k}"] for k in range(3)]))


@ALL
def test_shuffled_targets_score_near_chance(protocol: ProtocolConfig) -> None:
    """200 vectors of 400 numbers can be fitted perfectly: a score above chance would mean that a test label leaked."""
    rng = np.random.default_rng(1)
    vectors = embeddings(size=400)
    scores = score_embeddings(protocol, vectors, make_spec("multiclass", rng.permutation(np.arange(200) % 4)))
    assert abs(scores["accuracy"] - 0.25) < 0.12
    scores = score_embeddings(protocol, vectors, make_spec("multilabel", rng.random((200, 6)) < 0.3))
    assert abs(scores["d_prime"]) < 0.4
    scores = score_embeddings(protocol, vectors, make_spec("regression", rng.standard_normal((200, 1))))
    assert scores["score"] < 0.1


@ALL
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_predictions_do_not_depend_on_other_test_examples(protocol: ProtocolConfig, kind: Kind) -> None:
    """Wild vectors with targets of their own join one test fold: its other answers stay as they were."""
    vectors = embeddings() + np.eye(40, dtype=np.float32)[classes()]
    spec = {
        "multiclass": make_spec("multiclass", np.append(classes(), np.full(10, 9))),
        "multilabel": make_spec(
            "multilabel", np.append(np.eye(10, dtype=bool)[classes()], np.ones((10, 10), bool), axis=0)
        ),
        "regression": make_spec(
            "regression", np.append(vectors[:, :2], np.full((10, 2), 1e6), axis=0).astype(np.float64)
        ),
    }[kind]
    split = folds(200)[0]
    more = replace(split, test=np.append(split.test, np.arange(200, 210)))
    wild = np.concatenate([vectors, np.full((10, 40), 1e6, np.float32)])
    before, after = (predict(protocol, wild, replace(spec, splits=(split,)))[0] for split in (split, more))
    np.testing.assert_allclose(after[:40], before, atol=1e-6)


@ALL
def test_class_without_training_examples_counts_as_wrong(protocol: ProtocolConfig) -> None:
    vectors = embeddings(size=8) + 5.0 * np.eye(8, dtype=np.float32)[classes()]
    known = np.flatnonzero(classes() < 3)
    split = Split("test", train=known[:100], valid=known[100:120], test=np.arange(120, 200))
    scores = score_embeddings(protocol, vectors, make_spec("multiclass", classes(), [split], labels=6))
    assert scores["accuracy"] == pytest.approx(np.mean(classes()[120:] < 3), abs=0.03)
    single = Split("test", train=np.flatnonzero(classes() == 1)[:30], valid=known[:0], test=np.arange(120, 200))
    assert score_embeddings(protocol, vectors, make_spec("multiclass", classes(), [single]))["accuracy"] == 0.25


@ALL
def test_label_without_training_examples(protocol: ProtocolConfig) -> None:
    vectors = embeddings(size=20)
    targets = vectors[:, :3] > 0.0
    targets[:160, 1] = False
    targets[:160, 2] = True
    split = Split("test", train=np.arange(130), valid=np.arange(130, 160), test=np.arange(160, 200))
    assert np.isfinite(
        list(score_embeddings(protocol, vectors, make_spec("multilabel", targets, [split])).values())
    ).all()


@ALL
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_constant_embeddings_score_chance_without_warning(protocol: ProtocolConfig, kind: Kind) -> None:
    targets = {
        "multiclass": classes(),
        "multilabel": np.eye(4, dtype=bool)[classes()],
        "regression": np.stack([classes(), np.zeros(200)], axis=1).astype(np.float64),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_embeddings(protocol, np.full((200, 8), 0.1, np.float32), make_spec(kind, targets))
    chance = {"multiclass": 0.25, "multilabel": 0.25, "regression": 0.0}[kind]
    assert scores[METRICS[kind][0]] == pytest.approx(chance, abs=0.2)


@pytest.mark.slow
@ALL
def test_same_seed_same_scores(protocol: ProtocolConfig) -> None:
    vectors = embeddings() + np.eye(40, dtype=np.float32)[classes()]
    state = torch.get_rng_state()
    once, again = (score_embeddings(protocol, vectors, make_spec("multiclass", classes())) for _ in range(2))
    assert once == again
    assert torch.equal(torch.get_rng_state(), state)


def test_linear_agrees_with_scikit_learn() -> None:
    vectors = embeddings() + np.eye(40, dtype=np.float32)[classes()]
    split = folds(200)[2]
    rows = np.append(split.train, split.valid)
    scaler = StandardScaler().fit(vectors[rows])
    fitted, tested = scaler.transform(vectors[rows]), scaler.transform(vectors[split.test])

    model = LogisticRegression(max_iter=1000).fit(fitted, classes()[rows])
    scores = score_embeddings(LINEAR, vectors, make_spec("multiclass", classes(), [split]))
    assert scores["accuracy"] == model.score(tested, classes()[split.test])

    labels = vectors[:, :3] + embeddings(seed=1)[:, :3] > [0.0, 1.0, 2.0]
    odds = [
        LogisticRegression(tol=1e-8, max_iter=1000).fit(fitted, label[rows]).decision_function(tested)
        for label in labels.T
    ]
    predictions = predict(LINEAR, vectors, make_spec("multilabel", labels, [split]))[0]
    np.testing.assert_allclose(predictions, np.stack(odds, axis=1), atol=0.03)


def test_knn_votes_are_weighted_by_similarity() -> None:
    """Two neighbours, one straight ahead and one to the side at cosine c: exp(1 / 0.07) votes against exp(c / 0.07)."""
    vectors = np.array([[3, 0], [-3, 0], [2.9, 1], [-2.9, -1], [1.5, 0]], np.float32)
    split = Split("test", train=np.arange(3), valid=np.arange(3, 4), test=np.arange(4, 5))
    spec = make_spec("regression", np.array([[1.0], [0.0], [0.0], [0.0], [1.0]]), [split])
    predictions = predict(ProtocolConfig(kind="knn", neighbours=2), vectors, spec)[0]
    aside = vectors[2] / vectors[:4].std(axis=0)
    assert predictions[0, 0] == pytest.approx(
        1.0 / (1.0 + np.exp((aside[0] / np.hypot(*aside) - 1.0) / 0.07)), rel=1e-4
    )


def test_ridge_predictions_are_bounded() -> None:
    """A direction that all but vanishes in training points a test example far away."""
    vectors = embeddings(60, 100)
    vectors[:48, 0] *= 1e-6
    targets = vectors[:, 1:2].astype(np.float64) + 0.5 * vectors[:, :1]
    split = Split("test", train=np.arange(48), valid=np.arange(0), test=np.arange(48, 60))
    predictions = predict(LINEAR, vectors, make_spec("regression", targets, [split]))[0]
    low, high = targets[:48].min(), targets[:48].max()
    assert low - (high - low) <= predictions.min()
    assert predictions.max() <= high + (high - low)


def test_held_out_tenth_has_every_class() -> None:
    """A tenth of each class, one example of a class that has two, and none of a class that has one."""
    of = np.concatenate([np.arange(200) % 4, [4, 4, 5], np.arange(20) % 4])
    split = Split("test", train=np.arange(203), valid=np.arange(0), test=np.arange(203, 223))
    spec = make_spec("multiclass", of, [split])
    train, valid = validation.parts(spec, split)
    assert sorted([*train, *valid]) == list(range(203))
    assert np.bincount(of[valid], minlength=6).tolist() == [5, 5, 5, 5, 1, 0]
    np.testing.assert_array_equal(valid, validation.parts(spec, split)[1])
    rare = np.zeros((220, 3), bool)
    rare[:, 0], rare[:20, 1], rare[20:60, 2] = True, True, True
    split = Split("test", train=np.arange(200), valid=np.arange(0), test=np.arange(200, 220))
    train, valid = validation.parts(make_spec("multilabel", rare, [split]), split)
    assert rare[valid].sum(axis=0).tolist() == [20, 2, 4]


@ALL
@pytest.mark.parametrize("of", [[0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 1, 1], [0] * 30 + [1]])
def test_few_training_examples_can_be_validated(protocol: ProtocolConfig, of: list[int]) -> None:
    """Classes of one example; and validation examples of one class, in whose place a tenth is taken."""
    count = len(of)
    targets = np.array([*of, *range(4)])
    for valid in (0, of.count(0)):
        split = Split("test", np.arange(valid, count), np.arange(valid), np.arange(count, count + 4))
        spec = replace(make_spec("multiclass", targets, [split]), metrics=("accuracy", "d_prime"))
        assert len(np.unique(targets[validation.parts(spec, split)[1]])) > 1
        if valid < count:
            assert np.isfinite(list(score_embeddings(protocol, embeddings(count + 4), spec).values())).all()


def test_linear_validation_fits_train_alone() -> None:
    vectors = embeddings() + np.eye(40, dtype=np.float32)[classes()]
    split = folds(200)[2]
    scaler = StandardScaler().fit(vectors[split.train])
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(vectors[split.train]), classes()[split.train])
    scores = score_embeddings(LINEAR, vectors, make_spec("multiclass", classes(), [split]))
    assert scores["accuracy_valid"] == model.score(scaler.transform(vectors[split.valid]), classes()[split.valid])


def test_mlp_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    fit = mlp.fit_network

    def record(*given: Any) -> Any:
        fitted.append((given[-1].name, given[1]))
        return fit(*given)

    monkeypatch.setattr(mlp, "fit_network", record)
    spec = make_spec("multiclass", classes())
    config = ProtocolConfig(kind="mlp", grid_points=2, max_epochs=1)
    score_embeddings(config, embeddings(), spec)
    assert [name for name, _ in fitted] == ["fold_0", "fold_0", "fold_1", "fold_2", "fold_3", "fold_4"]
    assert len({point for _, point in fitted[2:]}) == 1
    fitted.clear()
    score_embeddings(config.model_copy(update={"selection": "each_split"}), embeddings(), spec)
    assert len(fitted) == 10


def test_mlp_early_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    measured = common.measured

    def record(*given: Any) -> float:
        checks.append(measured(*given))
        return checks[-1]

    monkeypatch.setattr(common, "measured", record)
    monkeypatch.setattr(mlp, "PATIENCE", 2)
    point, spec = mlp.GRID[0], make_spec("multiclass", np.random.default_rng(0).permutation(classes()))
    config = MLP.model_copy(update={"max_epochs": 500})
    network = mlp.fit_network(config, point, embeddings(), spec, spec.splits[0])
    assert len(checks) < 500 / mlp.CHECK_EVERY
    assert network.validation == max(checks) == checks[-3]


def test_embeddings_that_are_not_finite_are_refused() -> None:
    vectors = embeddings()
    vectors[[5, 17], 3] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 200 embeddings are not finite: rows 5, 17"):
        score_embeddings(LINEAR, vectors, make_spec("multiclass", classes()))


def test_unusable_specs_are_refused() -> None:
    spec = make_spec("multiclass", classes())
    with pytest.raises(ConfigError, match="'mAO'"):
        score_embeddings(LINEAR, embeddings(), replace(spec, metrics=("mAO",)))
    with pytest.raises(ValueError, match="190 embeddings of 200 examples"):
        score_embeddings(LINEAR, embeddings(190), spec)
    with pytest.raises(ValueError, match="fold_0 has no test examples"):
        score_embeddings(LINEAR, embeddings(), replace(spec, splits=(replace(spec.splits[0], test=np.arange(0)),)))
    values = make_spec("regression", np.random.default_rng(0).random((200, 2)))
    with pytest.raises(ConfigError, match="'score' is the name of a score"):
        score_embeddings(LINEAR, embeddings(), replace(values, labels=("pitch", "score")))
    with pytest.raises(ValueError, match="mAP cannot be measured on the test examples of fold_0"):
        score_embeddings(LINEAR, embeddings(), make_spec("multilabel", np.zeros((200, 2), bool)))
