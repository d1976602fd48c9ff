"""HEAR's shallow networks (hear-eval-kit; Turian et al., 2022), chosen on the validation examples.

As in hear-eval-kit: one or two hidden layers of 1024 with batch norm, dropout 0.1 and ReLU; Xavier initialisation;
Adam, batches of 1024, cross-entropy (binary for labels); the task's first metric on the validation examples every
3 epochs, 20 checks of patience, 500 epochs at most; the weights of the best check are kept. Eight of 16 combinations
are tried on the first split, and the best serves the others.

Not as there: embeddings are standardised; batches are shuffled and as even in size as possible (no last batch of one
example, which batch norm refuses); probabilities are computed in float64, so that near-certain ones do not tie; and
regression, which HEAR does not have, minimises the squared error of standardised values.
"""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from doppel_ray.probe.metrics import METRICS
from doppel_ray.probe.protocols.common import Predictions, bounded, on_validation, standardised, target_columns
from doppel_ray.probe.protocols.config import ProtocolConfig
from doppel_ray.probe.task import Kind, Split, TaskSpec
from doppel_ray.probe.validation import parts

HIDDEN = 1024
DROPOUT = 0.1
BATCH = 1024
CHECK_EVERY = 3
"""Epochs between checks on the validation examples."""
PATIENCE = 20
"""Checks without improvement after which a network stops."""


@dataclass(frozen=True)
class GridPoint:
    """What HEAR varies between its networks; the rest is above."""

    hidden_layers: int
    lr: float
    initialize: Callable[..., Tensor]


GRID = tuple(
    itertools.starmap(
        GridPoint,
        itertools.product((1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4), (nn.init.xavier_uniform_, nn.init.xavier_normal_)),
    )
)
"""The 16 combinations of hear-eval-kit's default grid."""


@dataclass(frozen=True)
class FittedNetwork:
    """A network at its best check.

    Attributes:
        point: its grid point.
        validation: the task's first metric on the validation examples.
        predictions: those at the same check.
    """

    point: GridPoint
    validation: float
    predictions: Predictions


def fit(protocol: ProtocolConfig, embeddings: np.ndarray, spec: TaskSpec) -> list[FittedNetwork]:
    """Return the best network of each split.

    As in HEAR, the network fitted on the training examples alone predicts the test examples too.
    """
    rng = np.random.default_rng(protocol.seed)
    grid = [GRID[k] for k in rng.permutation(len(GRID))[: protocol.grid_points]]
    best_of_splits = []
    for split in spec.splits:
        networks = [fit_network(protocol, point, embeddings, spec, split) for point in grid]
        best = max(networks, key=lambda network: network.validation)
        best_of_splits.append(best)
        if protocol.selection == "first_split":
            grid = [best.point]
    return best_of_splits


def fit_network(
    protocol: ProtocolConfig, point: GridPoint, embeddings: np.ndarray, spec: TaskSpec, split: Split
) -> FittedNetwork:
    """Fit one network on a split."""
    train, valid = parts(spec, split)
    fitted, checked, tested = (
        torch.from_numpy(rows).float()
        for rows in standardised(embeddings[train], embeddings[valid], embeddings[split.test])
    )
    columns = target_columns(spec)[train]
    centre, scale = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    if spec.kind == "regression":
        centre, scale = columns.mean(axis=0), columns.std(axis=0)
        scale[scale == 0.0] = 1.0
    wanted = torch.from_numpy(((columns - centre) / scale).astype(np.float32))
    metric = METRICS[spec.metrics[0]]

    def predict(network: nn.Module, rows: Tensor) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return _ACTIVATION[spec.kind](network(rows).double()).numpy() * scale + centre

    def validation_score(network: nn.Module) -> float:
        return on_validation(metric, predict(network, checked), spec, valid, split.name)

    network, best = _train(protocol, point, fitted, wanted, _LOSS[spec.kind], validation_score)

    def restricted(predictions: np.ndarray) -> np.ndarray:
        if spec.kind == "multiclass":
            predictions[:, ~columns.any(axis=0)] = 0.0  # for a class without training examples the output is random
        return bounded(predictions, columns) if spec.kind == "regression" else predictions

    predictions = Predictions(restricted(predict(network, tested)), restricted(predict(network, checked)), valid)
    return FittedNetwork(point, best, predictions)


def _train(
    protocol: ProtocolConfig,
    point: GridPoint,
    inputs: Tensor,
    wanted: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    validation_score: Callable[[nn.Module], float],
) -> tuple[nn.Module, float]:
    """Train a network until validation stops improving; return it as of its best check, and the score there."""
    # Dropout draws from the global generator; fork_rng restores the caller's state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(protocol.seed)
        network = _network(inputs.shape[1], wanted.shape[1], point)
        optimizer = torch.optim.Adam(network.parameters(), lr=point.lr)
        best, weights, checks = -math.inf, copy.deepcopy(network.state_dict()), 0
        for epoch in range(1, protocol.max_epochs + 1):
            network.train()
            for batch in torch.randperm(len(inputs)).tensor_split(math.ceil(len(inputs) / BATCH)):
                optimizer.zero_grad()
                loss(network(inputs[batch]), wanted[batch]).backward()
                optimizer.step()
            if epoch % CHECK_EVERY and epoch < protocol.max_epochs:
                continue
            score = validation_score(network)
            checks += 1
            if score > best:
                best, weights, checks = score, copy.deepcopy(network.state_dict()), 0
            elif checks >= PATIENCE:
                break
    network.load_state_dict(weights)
    return network, best


def _network(size: int, outputs: int, point: GridPoint) -> nn.Sequential:
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
