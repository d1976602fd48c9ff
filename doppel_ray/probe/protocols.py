"""From embeddings to scores: what is fitted on a task's training examples and asked about its others.

Every score is there twice. The test score is reported. The validation score, under the same name with `_valid`, chooses
checkpoints and trials: for it a probe of its own is fitted without the validation examples and asked about those.

Three protocols, all on embeddings standardised by the mean and deviation of the rows that are fitted on:

- `linear`: logistic or ridge regression, quick enough to follow every epoch of a sweep.
- `mlp`: the shallow networks of HEAR's hear-eval-kit (Turian et al., 2022), chosen on the validation examples.
- `knn`: the nearest training examples vote, weighted as by Wu et al. (2018); nothing is fitted but the mean and
  deviation.

scikit-learn takes two seconds to import, and most processes that import this package never fit anything: it is imported
where it is used.
"""

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.core.score_names import VALID
from doppel_ray.probe.metrics import METRICS, Metric, check, interval, r2
from doppel_ray.probe.task import Kind, Split, TaskSpec
from doppel_ray.probe.validation import parts


class ProtocolConfig(Section):
    """The probe that predicts labels from embeddings."""

    kind: Literal["linear", "mlp", "knn"] = "linear"
    """linear: logistic or ridge regression. mlp: HEAR's shallow networks,
    for final results. knn: nearest neighbours."""
    neighbours: int = Field(default=10, ge=1)
    """knn: number of training examples that vote on a test example."""
    grid_points: int = Field(default=8, ge=1, le=16)
    """mlp: number of HEAR's 16 hyperparameter combinations to try, drawn at random; HEAR tries 8."""
    max_epochs: int = Field(default=500, ge=1)
    """mlp: largest number of epochs per network; HEAR has 500, its fast grid 10 or 50."""
    selection: Literal["first_split", "each_split"] = "first_split"
    """mlp: when hyperparameters are chosen. first_split: once, on the first split, as HEAR does; test folds of other
    splits then take part in the choice, but never in fitting. each_split: for every split, which takes as many times
    longer."""
    seed: int = Field(default=0, ge=0)
    """Random seed of initial weights, batch order and bootstrap."""


NamedProtocol = Annotated[
    ProtocolConfig, BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value)
]
"""A protocol's settings, or its kind alone."""


def evaluate(protocol: ProtocolConfig, embeddings: np.ndarray, questions: TaskSpec) -> dict[str, float]:
    """Return what embeddings score on a task.

    A score is the mean over the splits; in regression, the metric over the predictions of all splits together.

    Args:
        protocol: how to ask.
        embeddings: (n, size) float32.
        questions: what to ask, about the same n examples.

    Returns:
        The test score of each metric of `questions` under its name; `<metric>_low` and `<metric>_high`, the 95 %
        bootstrap interval of the first one; `<metric>_valid`, the validation score of each. For classes and labels,
        with more than one split, the first metric of each split under the split's name. For regression also "score",
        "score_valid", and R² of each value under its label.

    Raises:
        ConfigError: the metrics don't fit the kind of task, or the name of a value or a split is that of a score.
        ValueError: an embedding is not finite, a split has no examples to fit on or to test on, or a metric cannot be
            measured on a split's examples.
    """
    _check(embeddings, questions)
    answers = _answers(protocol, embeddings, questions)
    tests = [answer.test for answer in answers]
    targets = [questions.targets[split.test] for split in questions.splits]
    regression = questions.kind == "regression"

    scores: dict[str, float] = {}
    of_splits: dict[str, float] = {}
    for name in questions.metrics:
        metric = METRICS[name]
        if regression:
            scores[name] = metric(np.concatenate(tests), np.concatenate(targets), questions.labels)
            continue
        values = {
            split.name: _measured(metric, asked, target, questions.labels, f"the test examples of {split.name}")
            for split, asked, target in zip(questions.splits, tests, targets, strict=True)
        }
        scores[name] = float(np.mean(list(values.values())))
        of_splits = of_splits or values
    first = questions.metrics[0]
    scores[f"{first}_low"], scores[f"{first}_high"] = interval(
        METRICS[first], tests, targets, questions.labels, pooled=regression, seed=protocol.seed
    )
    scores |= {name: _validated(name.removesuffix(VALID), answers, questions) for name in choosing(questions)}
    if regression:
        explained = r2(np.concatenate(tests), np.concatenate(targets)).tolist()
        return {"score": float(np.mean(explained))} | scores | dict(zip(questions.labels, explained, strict=True))
    return scores | of_splits if len(questions.splits) > 1 else scores


def ask(protocol: ProtocolConfig, embeddings: np.ndarray, questions: TaskSpec) -> list[np.ndarray]:
    """Return what is answered about the test examples of each split, after fitting on its others.

    Returns:
        For each split (test, labels): of classes their probabilities, of labels their odds or probabilities, of values
        the predictions.
    """
    if protocol.kind == "mlp":
        return [network.answers.test for network in _mlp(protocol, embeddings, questions)]
    ask_once = _ASK_ONCE[protocol.kind]
    return [ask_once(protocol, embeddings, questions, _all_but_test(split), split.test) for split in questions.splits]


def columns(questions: TaskSpec) -> tuple[str, ...]:
    """Return the names of the scores that `evaluate` gives."""
    first, *_ = questions.metrics
    of_splits = tuple(split.name for split in questions.splits) if len(questions.splits) > 1 else ()
    extra = ("score", *questions.labels) if questions.kind == "regression" else of_splits
    named = (*questions.metrics, f"{first}_low", f"{first}_high", *choosing(questions), *extra)
    return tuple(dict.fromkeys(named))


def choosing(questions: TaskSpec) -> tuple[str, ...]:
    """Return the names of the validation scores that `evaluate` gives: those by which something may be chosen."""
    named = (*questions.metrics, *(["score"] if questions.kind == "regression" else []))
    return tuple(f"{name}{VALID}" for name in dict.fromkeys(named))


@dataclass(frozen=True)
class _Answers:
    """What is answered about a split.

    Attributes:
        test: about its test examples.
        valid: about `rows`, by a probe that was not fitted on them.
        rows: the validation examples.
    """

    test: np.ndarray
    valid: np.ndarray
    rows: np.ndarray


def _answers(protocol: ProtocolConfig, embeddings: np.ndarray, questions: TaskSpec) -> list[_Answers]:
    """Answers about the test and the validation examples of each split."""
    if protocol.kind == "mlp":
        return [network.answers for network in _mlp(protocol, embeddings, questions)]
    found = []
    for split, test in zip(questions.splits, ask(protocol, embeddings, questions), strict=True):
        train, valid = parts(questions, split)
        answered = _ASK_ONCE[protocol.kind](protocol, embeddings, questions, train, valid)
        found.append(_Answers(test, answered, valid))
    return found


def _validated(name: str, answers: Sequence[_Answers], questions: TaskSpec) -> float:
    """A validation score: as the test score, the mean over the splits, or over all their predictions together."""
    metric = METRICS[name]
    if questions.kind == "regression":
        rows = np.concatenate([answer.rows for answer in answers])
        return metric(np.concatenate([answer.valid for answer in answers]), questions.targets[rows], questions.labels)
    return float(
        np.mean(
            [
                _on_validation(metric, answer.valid, questions, answer.rows, split.name)
                for split, answer in zip(questions.splits, answers, strict=True)
            ]
        )
    )


def _on_validation(metric: Metric, answers: np.ndarray, questions: TaskSpec, rows: np.ndarray, split: str) -> float:
    """A metric on validation examples; labels that all of them have, or none, are left out."""
    targets, labels = questions.targets[rows], questions.labels
    if questions.kind == "multilabel":
        varied = targets.any(axis=0) & ~targets.all(axis=0)
        answers, targets = answers[:, varied], targets[:, varied]
        labels = tuple(itertools.compress(labels, varied))
    return _measured(metric, answers, targets, labels, f"the validation examples of {split}")


def _all_but_test(split: Split) -> np.ndarray:
    """What a probe without settings is fitted on for the test score."""
    return np.concatenate([split.train, split.valid])


def _check(embeddings: np.ndarray, questions: TaskSpec) -> None:
    check(questions.metrics, questions.kind, questions.labels)
    first = questions.metrics[0]
    names = questions.labels if questions.kind == "regression" else tuple(split.name for split in questions.splits)
    taken = {"score", *questions.metrics, f"{first}_low", f"{first}_high", *choosing(questions)}
    if clash := taken & set(names):
        raise ConfigError(f"{min(clash)!r} is the name of a score; call the value or split of that name something else")
    if len(embeddings) != len(questions.targets):
        raise ValueError(f"there are {len(embeddings)} embeddings of {len(questions.targets)} examples")
    wild = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if wild.size:
        shown = ", ".join(map(str, wild[:10])) + (", ..." if wild.size > 10 else "")
        raise ValueError(f"{wild.size} of {len(embeddings)} embeddings are not finite: rows {shown}")
    for split in questions.splits:
        for part in ("train", "test"):
            if not len(getattr(split, part)):
                raise ValueError(f"{split.name} has no {part} examples")


def _measured(metric: Metric, answers: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], where: str) -> float:
    value = metric(answers, targets, labels)
    if not math.isfinite(value):
        raise ValueError(
            f"{metric.name} cannot be measured on {where}: none of its labels is on some and not on others"
        )
    return value


def _standardised(fitted: np.ndarray, *others: np.ndarray) -> Iterator[np.ndarray]:
    """`fitted` and `others`, by the mean and deviation of `fitted`; a number that never varies there becomes 0."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(fitted)
    return (scaler.transform(rows) for rows in (fitted, *others))


def _guarded(predictions: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Predicted values, none further outside the range of the values fitted on than that range is wide.

    With fewer examples than numbers in an embedding, a direction that hardly varies in training can carry a test
    example arbitrarily far, and R² squares the mistake. No sensible prediction reaches the bound.
    """
    low, high = fitted.min(axis=0), fitted.max(axis=0)
    return np.clip(predictions, low - (high - low), high + (high - low))


LARGE = 10_000_000
"""Numbers in the embeddings of a task from which on linear models are fitted with more than one thread."""


def _linear(
    protocol: ProtocolConfig, embeddings: np.ndarray, questions: TaskSpec, fit: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Answers about the examples `asked` by a linear model of the examples `fit`."""
    from threadpoolctl import threadpool_limits

    # The threads of small products wait for each other longer than they work: on a busy machine, ten times as long.
    threads = torch.get_num_threads() if embeddings.size > LARGE else 1
    with threadpool_limits(threads, user_api="blas"):
        fitted, others = _standardised(embeddings[fit], embeddings[asked])
        return _FIT_LINEAR[questions.kind](fitted, questions.targets[fit], others, len(questions.labels))


def _logistic(fitted: np.ndarray, classes: np.ndarray, tested: np.ndarray, labels: int) -> np.ndarray:
    """Probabilities of multinomial logistic regression, 0 for a class that was not fitted on: (n, labels)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    answers = np.zeros((len(tested), labels))
    seen = np.unique(classes)
    if len(seen) == 1:
        answers[:, seen] = 1.0
        return answers
    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        # Small sets are separable in 500 dimensions: the weights never settle, the labels do long before.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(fitted, classes)
    answers[:, seen] = model.predict_proba(tested)
    return answers


def _logistic_of_each(fitted: np.ndarray, has: np.ndarray, tested: np.ndarray, labels: int) -> np.ndarray:
    """Log odds by a logistic regression of each label: (n, labels).

    The objective is scikit-learn's at C = 1, summed log loss + |w|² / 2 with a free intercept. All labels are fitted in
    one L-BFGS run, whose steps are two matrix products. It moves in units in which the curvature at the start is 1 in
    every direction: along the eigenvectors of XᵀX, each as long as its eigenvalue and the label's frequency say. The
    optimum is the same, and some thirty steps away instead of several hundred; a step of 0.001 is a
    thousandth of what the data leave uncertain about a weight, and the last.
    """
    answers = np.where(has.all(axis=0), 1.0, -1.0) * np.ones((len(tested), 1))
    varied = has.any(axis=0) & ~has.all(axis=0)  # the intercept of any other would run to infinity
    if not varied.any():
        return answers
    rows = torch.from_numpy(fitted.astype(np.float32))
    wanted = torch.from_numpy(has[:, varied].astype(np.float32))
    energy, directions = torch.linalg.eigh(rows.T @ rows)
    share = wanted.mean(dim=0)
    spread = share * (1.0 - share)
    unit = (spread * energy.clamp_min(0.0)[:, None] + 1.0).rsqrt()
    bias_unit = (len(rows) * spread).rsqrt()
    along = rows @ directions
    weight = torch.zeros(rows.shape[1], wanted.shape[1], requires_grad=True)
    bias = (torch.log(share / (1.0 - share)) / bias_unit).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=100, tolerance_grad=0.0, tolerance_change=1e-3, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        scaled = weight * unit
        odds = along @ scaled + bias * bias_unit
        loss = nn.functional.binary_cross_entropy_with_logits(odds, wanted, reduction="none")
        # In float32, the sum over all labels would round away what the last steps gain.
        loss = (loss.sum(dim=0) + scaled.square().sum(dim=0) / 2.0).double().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        weights = directions @ (weight * unit)
        answers[:, varied] = torch.from_numpy(tested.astype(np.float32)) @ weights + bias * bias_unit
    return answers


def _ridge(fitted: np.ndarray, values: np.ndarray, tested: np.ndarray, labels: int) -> np.ndarray:
    """Ridge regression, its strength chosen for each value on its own by leaving out one of the fitted rows at a time:
    (n, values).
    """
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-1, 5, 7), alpha_per_target=True).fit(fitted, values)
    # A single value comes back without its column.
    return _guarded(model.predict(tested).reshape(-1, labels), values)


_FIT_LINEAR: dict[Kind, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "multiclass": _logistic,
    "multilabel": _logistic_of_each,
    "regression": _ridge,
}

TEMPERATURE = 0.07
"""Wu et al. (2018): a neighbour at cosine similarity s votes with weight exp(s / 0.07)."""


def _knn(
    protocol: ProtocolConfig, embeddings: np.ndarray, questions: TaskSpec, fit: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Weighted mean of the targets of the neighbours of the examples `asked` among the examples `fit`: of classes and
    labels, their share of the votes; of values, the prediction.

    Weights are those of Wu et al. (2018), on standardised embeddings; they take 200 neighbours among a million images.
    """
    targets = torch.from_numpy(_columns(questions))
    near, others = (
        nn.functional.normalize(torch.from_numpy(of), dim=1) for of in _standardised(embeddings[fit], embeddings[asked])
    )
    answers = []
    for some in others.split(256):
        similarity, which = (some @ near.T).topk(min(protocol.neighbours, len(fit)), dim=1)
        votes = (similarity.double() / TEMPERATURE).softmax(dim=1)
        answers.append(torch.einsum("nk,nkl->nl", votes, targets[torch.from_numpy(fit)[which]]))
    return torch.cat(answers).numpy()


def _columns(questions: TaskSpec) -> np.ndarray:
    """Targets with a column for each label, classes as ones and zeros: (n, labels) float64."""
    if questions.kind == "multiclass":
        return np.eye(len(questions.labels))[questions.targets]
    return questions.targets.astype(np.float64)


HIDDEN = 1024
DROPOUT = 0.1
BATCH = 1024
EPOCHS_A_CHECK = 3
PATIENCE = 20
"""Checks on the validation examples without improvement after which a network is given up."""


@dataclass(frozen=True)
class _GridPoint:
    """What HEAR varies between its networks; the rest is above."""

    hidden_layers: int
    lr: float
    initialize: Callable[..., Tensor]


GRID = tuple(
    itertools.starmap(
        _GridPoint,
        itertools.product((1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4), (nn.init.xavier_uniform_, nn.init.xavier_normal_)),
    )
)
"""The 16 combinations of hear-eval-kit's default grid."""


def _mlp(protocol: ProtocolConfig, embeddings: np.ndarray, questions: TaskSpec) -> list["_Fitted"]:
    """HEAR's shallow networks, the best of each split. As in HEAR, the network that was fitted on the training examples
    alone answers about the test examples too.

    As in hear-eval-kit: one or two hidden layers of 1024 with batch norm, dropout 0.1 and ReLU; Xavier initialisation;
    Adam, batches of 1024, cross-entropy (binary for labels); the task's first metric on the validation examples every
    3 epochs, 20 checks of patience, 500 epochs at most; the weights of the best check are kept. Eight of 16
    combinations are tried on the first split, and the best serves the others.

    Not as there: embeddings are standardised; batches are shuffled, and as even in size as can be (no last batch of one
    example, which batch norm refuses); probabilities are those of float64, so that near-certain ones do not tie; and
    regression, which HEAR does not have, minimises the squared error of standardised values.
    """
    rng = np.random.default_rng(protocol.seed)
    grid = [GRID[k] for k in rng.permutation(len(GRID))[: protocol.grid_points]]
    found = []
    for split in questions.splits:
        networks = [_fit_network(protocol, point, embeddings, questions, split) for point in grid]
        best = max(networks, key=lambda network: network.validation)
        found.append(best)
        if protocol.selection == "first_split":
            grid = [best.point]
    return found


@dataclass(frozen=True)
class _Fitted:
    """A network at its best check.

    Attributes:
        point: how it was made.
        validation: the task's first metric on the validation examples.
        answers: of the same check.
    """

    point: _GridPoint
    validation: float
    answers: _Answers


def _fit_network(
    protocol: ProtocolConfig, point: _GridPoint, embeddings: np.ndarray, questions: TaskSpec, split: Split
) -> _Fitted:
    train, valid = parts(questions, split)
    fitted, checked, tested = (
        torch.from_numpy(rows).float()
        for rows in _standardised(embeddings[train], embeddings[valid], embeddings[split.test])
    )
    columns = _columns(questions)[train]
    centre, scale = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    if questions.kind == "regression":
        centre, scale = columns.mean(axis=0), columns.std(axis=0)
        scale[scale == 0.0] = 1.0
    wanted = torch.from_numpy(((columns - centre) / scale).astype(np.float32))
    metric = METRICS[questions.metrics[0]]

    def answer(rows: Tensor) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return _ACTIVATION[questions.kind](network(rows).double()).numpy() * scale + centre

    # Dropout draws from the global generator, which is the caller's again afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(protocol.seed)
        network = _network(fitted.shape[1], wanted.shape[1], point)
        optimizer = torch.optim.Adam(network.parameters(), lr=point.lr)
        best, weights, checks = -math.inf, copy.deepcopy(network.state_dict()), 0
        for epoch in range(1, protocol.max_epochs + 1):
            network.train()
            for batch in torch.randperm(len(fitted)).tensor_split(math.ceil(len(fitted) / BATCH)):
                optimizer.zero_grad()
                _LOSS[questions.kind](network(fitted[batch]), wanted[batch]).backward()
                optimizer.step()
            if epoch % EPOCHS_A_CHECK and epoch < protocol.max_epochs:
                continue
            score = _on_validation(metric, answer(checked), questions, valid, split.name)
            checks += 1
            if score > best:
                best, weights, checks = score, copy.deepcopy(network.state_dict()), 0
            elif checks >= PATIENCE:
                break

    def bounded(answers: np.ndarray) -> np.ndarray:
        if questions.kind == "multiclass":
            answers[:, ~columns.any(axis=0)] = 0.0  # what it says of a class that it never saw is its initial luck
        return _guarded(answers, columns) if questions.kind == "regression" else answers

    network.load_state_dict(weights)
    return _Fitted(point, best, _Answers(bounded(answer(tested)), bounded(answer(checked)), valid))


def _network(size: int, outputs: int, point: _GridPoint) -> nn.Sequential:
    layers: list[nn.Module] = []
    gain = 1.0
    for _ in range(point.hidden_layers):
        layer = nn.Linear(size, HIDDEN)
        point.initialize(layer.weight, gain=gain)
        layers += [layer, nn.BatchNorm1d(HIDDEN), nn.Dropout(DROPOUT), nn.ReLU()]
        size, gain = HIDDEN, nn.init.calculate_gain("relu")
    layer = nn.Linear(size, outputs)
    point.initialize(layer.weight, gain=gain)
    return nn.Sequential(*layers, layer)


_LOSS: dict[Kind, Callable[[Tensor, Tensor], Tensor]] = {
    "multiclass": nn.functional.cross_entropy,
    "multilabel": nn.functional.binary_cross_entropy_with_logits,
    "regression": nn.functional.mse_loss,
}
_ACTIVATION: dict[Kind, Callable[[Tensor], Tensor]] = {
    "multiclass": lambda logits: logits.softmax(dim=1),
    "multilabel": torch.sigmoid,
    "regression": lambda values: values,
}


_ASK_ONCE: dict[str, Callable[[ProtocolConfig, np.ndarray, TaskSpec, np.ndarray, np.ndarray], np.ndarray]] = {
    "linear": _linear,
    "knn": _knn,
}
"""Protocols without settings to choose: answers about some examples from others."""
