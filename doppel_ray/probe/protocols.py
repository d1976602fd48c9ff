"""From embeddings to scores: what is fitted on a task's training examples and asked about its test examples.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from doppel_ray.probe.metrics import METRICS, Metric, check, interval, r2
from doppel_ray.probe.task import Kind, Questions, Split
from doppel_ray.section import ConfigError, Section


class ProtocolConfig(Section):
    """How a task's questions are put to embeddings."""

    kind: Literal["linear", "mlp", "knn"] = "linear"
    """linear: logistic or ridge regression. mlp: HEAR's shallow networks, for final numbers. knn: nearest
    neighbours."""
    neighbours: int = Field(default=10, ge=1)
    """knn: training examples that vote on a test example."""
    grid_points: int = Field(default=8, ge=1, le=16)
    """mlp: how many of HEAR's 16 combinations are tried, drawn at random; HEAR tries 8."""
    max_epochs: int = Field(default=500, ge=1)
    """mlp: epochs after which a network that still gets better is stopped; HEAR's is 500, that of its fast grid 10
    or 50."""
    selection: Literal["first_split", "each_split"] = "first_split"
    """mlp: first_split chooses the combination once, as HEAR does: the test folds of the other splits take part in
    that choice, though never in fitting. each_split chooses anew in every fold, and takes as many times longer."""
    seed: int = Field(default=0, ge=0)
    """Of the networks' initial weights, the order of their batches, and the bootstrap."""


NamedProtocol = Annotated[
    ProtocolConfig, BeforeValidator(lambda value: {"kind": value} if isinstance(value, str) else value)
]
"""A protocol's settings, or its kind alone."""


def evaluate(protocol: ProtocolConfig, embeddings: np.ndarray, questions: Questions) -> dict[str, float]:
    """What embeddings score on a task.

    A score is the mean over the splits; in regression, the metric over the test predictions of all splits together.

    Args:
        protocol: how to ask.
        embeddings: (n, size) float32.
        questions: what to ask, about the same n examples.

    Returns:
        Each metric of `questions` under its name; `<metric>_low` and `<metric>_high`, the 95 % bootstrap interval of
        the first one. For classes and labels, with more than one split, the first metric of each split under the
        split's name. For regression also "score", and R² of each value under its label.

    Raises:
        ConfigError: the metrics don't fit the kind of task, or the name of a value or a split is that of a score.
        ValueError: an embedding is not finite, a split has no examples to fit on or to test on, or a metric cannot be
            measured on a split's test examples.
    """
    _check(embeddings, questions)
    answers = ask(protocol, embeddings, questions)
    targets = [questions.targets[split.test] for split in questions.splits]
    regression = questions.kind == "regression"

    scores: dict[str, float] = {}
    of_splits: dict[str, float] = {}
    for name in questions.metrics:
        metric = METRICS[name]
        if regression:
            scores[name] = metric(np.concatenate(answers), np.concatenate(targets), questions.labels)
            continue
        values = {
            split.name: _measured(metric, asked, target, questions.labels, f"the test examples of {split.name}")
            for split, asked, target in zip(questions.splits, answers, targets, strict=True)
        }
        scores[name] = float(np.mean(list(values.values())))
        of_splits = of_splits or values
    first = questions.metrics[0]
    scores[f"{first}_low"], scores[f"{first}_high"] = interval(
        METRICS[first], answers, targets, questions.labels, pooled=regression, seed=protocol.seed
    )
    if regression:
        explained = r2(np.concatenate(answers), np.concatenate(targets)).tolist()
        return {"score": float(np.mean(explained))} | scores | dict(zip(questions.labels, explained, strict=True))
    return scores | of_splits if len(questions.splits) > 1 else scores


def ask(protocol: ProtocolConfig, embeddings: np.ndarray, questions: Questions) -> list[np.ndarray]:
    """What is answered about the test examples of each split, after fitting on its others.

    Returns:
        For each split (test, labels): of classes their probabilities, of labels their odds or probabilities, of values
        the predictions.
    """
    return _ANSWER[protocol.kind](protocol, embeddings, questions)


def columns(questions: Questions) -> tuple[str, ...]:
    """Names of the scores that `evaluate` gives."""
    first, *_ = questions.metrics
    parts = tuple(split.name for split in questions.splits) if len(questions.splits) > 1 else ()
    regression = questions.kind == "regression"
    extra = ("score", *questions.labels) if regression else parts
    return tuple(dict.fromkeys((*questions.metrics, f"{first}_low", f"{first}_high", *extra)))


def _check(embeddings: np.ndarray, questions: Questions) -> None:
    check(questions.metrics, questions.kind, questions.labels)
    first = questions.metrics[0]
    names = questions.labels if questions.kind == "regression" else tuple(split.name for split in questions.splits)
    taken = {"score", *questions.metrics, f"{first}_low", f"{first}_high"}
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


def _linear(protocol: ProtocolConfig, embeddings: np.ndarray, questions: Questions) -> list[np.ndarray]:
    """Answers of a linear model to each split's test examples. It has nothing to choose on `valid`: that is fitted on
    as well.
    """
    from threadpoolctl import threadpool_limits

    found = []
    # The threads of small products wait for each other longer than they work: on a busy machine, ten times as long.
    threads = torch.get_num_threads() if embeddings.size > LARGE else 1
    with threadpool_limits(threads, user_api="blas"):
        for split in questions.splits:
            rows = np.concatenate([split.train, split.valid])
            fitted, tested = _standardised(embeddings[rows], embeddings[split.test])
            found.append(_FIT_LINEAR[questions.kind](fitted, questions.targets[rows], tested, len(questions.labels)))
    return found


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


def _knn(protocol: ProtocolConfig, embeddings: np.ndarray, questions: Questions) -> list[np.ndarray]:
    """Weighted mean of the neighbours' targets for each split's test examples: of classes and labels, their share of
    the votes; of values, the prediction. It has nothing to choose on `valid`: the neighbours are from there as well.

    Weights are those of Wu et al. (2018), on standardised embeddings; they take 200 neighbours among a million images.
    """
    targets = torch.from_numpy(_columns(questions))
    found = []
    for split in questions.splits:
        rows = np.concatenate([split.train, split.valid])
        near, asked = (
            nn.functional.normalize(torch.from_numpy(of), dim=1)
            for of in _standardised(embeddings[rows], embeddings[split.test])
        )
        answers = []
        for some in asked.split(256):
            similarity, which = (some @ near.T).topk(min(protocol.neighbours, len(rows)), dim=1)
            votes = (similarity.double() / TEMPERATURE).softmax(dim=1)
            answers.append(torch.einsum("nk,nkl->nl", votes, targets[torch.from_numpy(rows)[which]]))
        found.append(torch.cat(answers).numpy())
    return found


def _columns(questions: Questions) -> np.ndarray:
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


def _mlp(protocol: ProtocolConfig, embeddings: np.ndarray, questions: Questions) -> list[np.ndarray]:
    """Answers of HEAR's shallow networks to each split's test examples.

    As in hear-eval-kit: one or two hidden layers of 1024 with batch norm, dropout 0.1 and ReLU; Xavier initialisation;
    Adam, batches of 1024, cross-entropy (binary for labels); the task's first metric on the validation examples every
    3 epochs, 20 checks of patience, 500 epochs at most; the weights of the best check are kept. Eight of 16
    combinations are tried on the first split, and the best serves the others.

    Not as there: embeddings are standardised; batches are shuffled, and as even in size as can be (no last batch of one
    example, which batch norm refuses); probabilities are those of float64, so that near-certain ones do not tie; and
    regression, which HEAR does not have, minimises the squared error of standardised values. A split without `valid`
    gives a fifth of `train` to it, the same fifth every time: stratified by class, or by the rarest label of each
    example; drawn at random for values.
    """
    rng = np.random.default_rng(protocol.seed)
    grid = [GRID[k] for k in rng.permutation(len(GRID))[: protocol.grid_points]]
    found = []
    for split in questions.splits:
        networks = [_fit_network(protocol, point, embeddings, questions, split) for point in grid]
        best = max(networks, key=lambda network: network.validation)
        found.append(best.answers)
        if protocol.selection == "first_split":
            grid = [best.point]
    return found


@dataclass(frozen=True)
class _Fitted:
    """A network at its best check.

    Attributes:
        point: how it was made.
        validation: the task's first metric on the validation examples.
        answers: to the test examples.
    """

    point: _GridPoint
    validation: float
    answers: np.ndarray


def _fit_network(
    protocol: ProtocolConfig, point: _GridPoint, embeddings: np.ndarray, questions: Questions, split: Split
) -> _Fitted:
    train, valid = (split.train, split.valid) if len(split.valid) else _without_a_fifth(split, questions)
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
            where = f"the validation examples of {split.name}"
            score = _measured(metric, answer(checked), questions.targets[valid], questions.labels, where)
            checks += 1
            if score > best:
                best, weights, checks = score, copy.deepcopy(network.state_dict()), 0
            elif checks >= PATIENCE:
                break

    network.load_state_dict(weights)
    tests = answer(tested)
    if questions.kind == "multiclass":
        tests[:, ~columns.any(axis=0)] = 0.0  # what the network says of a class that it never saw is its initial luck
    elif questions.kind == "regression":
        tests = _guarded(tests, columns)
    return _Fitted(point, best, tests)


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


def _without_a_fifth(split: Split, questions: Questions) -> tuple[np.ndarray, np.ndarray]:
    """`split.train` as what is fitted on and, a fifth of it, what is checked on.

    Raises:
        ValueError: it is too small for that.
    """
    if len(split.train) < 3:
        raise ValueError(
            f"{split.name} has {len(split.train)} train examples and none to validate on; expected 3 or more"
        )
    rows = np.random.default_rng(0).permutation(split.train)
    targets = questions.targets[rows]
    if questions.kind == "multiclass":
        rows = rows[np.argsort(targets, kind="stable")]
    elif questions.kind == "multilabel":
        count = targets.sum(axis=0)
        rows = rows[np.argsort(np.where(targets, count, len(rows) + 1).min(axis=1), kind="stable")]
    checked = np.arange(len(rows)) % 5 == 2
    return rows[~checked], rows[checked]


_ANSWER: dict[str, Callable[[ProtocolConfig, np.ndarray, Questions], list[np.ndarray]]] = {
    "linear": _linear,
    "mlp": _mlp,
    "knn": _knn,
}
