"""From predictions to scores.

Every score has two values. The test score is reported. The validation score, under the same name with `_valid`, chooses
checkpoints and trials: a separate probe is fitted for it without the validation examples.
"""

from collections.abc import Sequence

import numpy as np

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import SUFFIXES, VALID
from doppel_ray.probe.metrics import METRICS, check, interval, r2
from doppel_ray.probe.protocols import knn, linear, mlp
from doppel_ray.probe.protocols.common import Predictions, measured, on_validation
from doppel_ray.probe.protocols.config import ProtocolConfig
from doppel_ray.probe.task import Split, TaskSpec
from doppel_ray.probe.validation import parts

_PREDICT = {"linear": linear.predict, "knn": knn.predict}
"""Protocols that choose no settings on the validation examples."""


def score_embeddings(protocol: ProtocolConfig, embeddings: np.ndarray, spec: TaskSpec) -> dict[str, float]:
    """Return the scores of embeddings on a task.

    A score is the mean over the splits; in regression, the metric over the predictions of all splits together.

    Args:
        protocol: how to predict.
        embeddings: (n, size) float32.
        spec: the task, about the same n examples.

    Returns:
        The test score of each metric of `spec` under its name; `<metric>_low` and `<metric>_high`, the 95 % bootstrap
        interval of the first one; `<metric>_valid`, the validation score of each. For classes and labels, with more
        than one split, the first metric of each split under the split's name. For regression also "score",
        "score_valid", and R² of each value under its label.

    Raises:
        ConfigError: the metrics do not fit the kind of task, or a value or split has the name of a score.
        ValueError: an embedding is not finite, a split has no training or no test examples, or a metric cannot be
            measured on a split's examples.
    """
    _check(embeddings, spec)
    predictions = _predictions(protocol, embeddings, spec)
    tests = [each.test for each in predictions]
    targets = [spec.targets[split.test] for split in spec.splits]
    regression = spec.kind == "regression"

    scores: dict[str, float] = {}
    of_splits: dict[str, float] = {}
    for name in spec.metrics:
        metric = METRICS[name]
        if regression:
            scores[name] = metric(np.concatenate(tests), np.concatenate(targets), spec.labels)
            continue
        values = {
            split.name: measured(metric, predicted, target, spec.labels, f"the test examples of {split.name}")
            for split, predicted, target in zip(spec.splits, tests, targets, strict=True)
        }
        scores[name] = float(np.mean(list(values.values())))
        of_splits = of_splits or values
    first = spec.metrics[0]
    scores[f"{first}_low"], scores[f"{first}_high"] = interval(
        METRICS[first], tests, targets, spec.labels, pooled=regression, seed=protocol.seed
    )
    scores |= {name: _validation_score(name.removesuffix(VALID), predictions, spec) for name in choosing(spec)}
    if regression:
        explained = r2(np.concatenate(tests), np.concatenate(targets)).tolist()
        return {"score": float(np.mean(explained))} | scores | dict(zip(spec.labels, explained, strict=True))
    return scores | of_splits if len(spec.splits) > 1 else scores


def predict(protocol: ProtocolConfig, embeddings: np.ndarray, spec: TaskSpec) -> list[np.ndarray]:
    """Return the predictions for the test examples of each split, after fitting on its others.

    Returns:
        For each split (test, labels): probabilities of classes, odds or probabilities of labels, or predicted values.
    """
    if protocol.kind == "mlp":
        return [network.predictions.test for network in mlp.fit(protocol, embeddings, spec)]
    by_protocol = _PREDICT[protocol.kind]
    return [by_protocol(protocol, embeddings, spec, _all_but_test(split), split.test) for split in spec.splits]


def columns(spec: TaskSpec) -> tuple[str, ...]:
    """Return the names of the scores that `score_embeddings` returns."""
    first, *_ = spec.metrics
    of_splits = tuple(split.name for split in spec.splits) if len(spec.splits) > 1 else ()
    extra = ("score", *spec.labels) if spec.kind == "regression" else of_splits
    named = (*spec.metrics, f"{first}_low", f"{first}_high", *choosing(spec), *extra)
    return tuple(dict.fromkeys(named))


def check_names(spec: TaskSpec) -> None:
    """Refuse names of values and splits that cannot be columns `probe/<task>/<name>`.

    Raises:
        ConfigError: a name is empty or that of a score, occurs twice, ends as the columns beside a score do, or has a
            slash, a bracket or a control character.
    """
    names = spec.labels if spec.kind == "regression" else tuple(split.name for split in spec.splits)
    what, rename = ("value", "column") if spec.kind == "regression" else ("split", "fold")
    taken = {"score", *spec.metrics}
    for place, name in enumerate(names):
        if name in taken:
            reason = "is the name of a score"
        elif name in names[:place]:
            reason = "occurs twice"
        elif suffix := next((suffix for suffix in SUFFIXES if name.endswith(suffix)), ""):
            reason = f"ends in {suffix}, as the columns beside a score do"
        elif not name or any(character in "/[]" or ord(character) < 32 for character in name):
            reason = "is empty, or has a slash, a bracket or a control character"
        else:
            continue
        raise ConfigError(
            f"{name!r} {reason}; the {what} of that name cannot be a column of the scores: rename the {rename}"
        )


def choosing(spec: TaskSpec) -> tuple[str, ...]:
    """Return the names of the validation scores, by which trials and checkpoints may be chosen."""
    named = (*spec.metrics, *(["score"] if spec.kind == "regression" else []))
    return tuple(f"{name}{VALID}" for name in dict.fromkeys(named))


def _predictions(protocol: ProtocolConfig, embeddings: np.ndarray, spec: TaskSpec) -> list[Predictions]:
    """Return the predictions for the test and validation examples of each split."""
    if protocol.kind == "mlp":
        return [network.predictions for network in mlp.fit(protocol, embeddings, spec)]
    predictions = []
    for split, test in zip(spec.splits, predict(protocol, embeddings, spec), strict=True):
        train, rows = parts(spec, split)
        valid = _PREDICT[protocol.kind](protocol, embeddings, spec, train, rows)
        predictions.append(Predictions(test, valid, rows))
    return predictions


def _validation_score(name: str, predictions: Sequence[Predictions], spec: TaskSpec) -> float:
    """Return a validation score: like the test score, the mean over the splits or over all predictions together."""
    metric = METRICS[name]
    if spec.kind == "regression":
        rows = np.concatenate([each.rows for each in predictions])
        return metric(np.concatenate([each.valid for each in predictions]), spec.targets[rows], spec.labels)
    values = [
        on_validation(metric, each.valid, spec, each.rows, split.name)
        for split, each in zip(spec.splits, predictions, strict=True)
    ]
    return float(np.mean(values))


def _all_but_test(split: Split) -> np.ndarray:
    """Return the examples that a protocol without settings is fitted on for the test score."""
    return np.concatenate([split.train, split.valid])


def _check(embeddings: np.ndarray, spec: TaskSpec) -> None:
    check(spec.metrics, spec.kind, spec.labels)
    check_names(spec)
    if len(embeddings) != len(spec.targets):
        raise ValueError(f"there are {len(embeddings)} embeddings of {len(spec.targets)} examples")
    wild = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if wild.size:
        shown = ", ".join(map(str, wild[:10])) + (", ..." if wild.size > 10 else "")
        raise ValueError(f"{wild.size} of {len(embeddings)} embeddings are not finite: rows {shown}")
    for split in spec.splits:
        for part in ("train", "test"):
            if not len(getattr(split, part)):
                raise ValueError(f"{split.name} has no {part} examples")
