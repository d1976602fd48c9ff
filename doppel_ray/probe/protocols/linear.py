"""Linear probes: logistic regression for classes and labels, ridge regression for values.

scikit-learn takes two seconds to import, and most processes never fit anything: it is imported where it is used.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from doppel_ray.probe.protocols.common import bounded, standardised
from doppel_ray.probe.protocols.config import ProtocolConfig
from doppel_ray.probe.task import Kind, TaskSpec

LARGE = 10_000_000
"""Numbers in a task's embeddings from which on linear models are fitted with more than one thread."""


def predict(
    protocol: ProtocolConfig, embeddings: np.ndarray, spec: TaskSpec, fit: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Predict the examples `rows` by a linear model of the examples `fit`: (rows, labels)."""
    from threadpoolctl import threadpool_limits

    # The threads of small products wait for each other longer than they work: on a busy machine, ten times as long.
    threads = torch.get_num_threads() if embeddings.size > LARGE else 1
    with threadpool_limits(threads, user_api="blas"):
        fitted, others = standardised(embeddings[fit], embeddings[rows])
        return _FIT[spec.kind](fitted, spec.targets[fit], others, len(spec.labels))


def _logistic(fitted: np.ndarray, classes: np.ndarray, tested: np.ndarray, labels: int) -> np.ndarray:
    """Return probabilities of multinomial logistic regression, 0 for a class without training examples: (n, labels)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    predictions = np.zeros((len(tested), labels))
    seen = np.unique(classes)
    if len(seen) == 1:
        predictions[:, seen] = 1.0
        return predictions
    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        # Small sets are separable in 500 dimensions: the weights never settle, the labels do long before.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(fitted, classes)
    predictions[:, seen] = model.predict_proba(tested)
    return predictions


def _logistic_of_each(fitted: np.ndarray, has: np.ndarray, tested: np.ndarray, labels: int) -> np.ndarray:
    """Return the log odds of a logistic regression for each label: (n, labels).

    The objective is scikit-learn's at C = 1: summed log loss + |w|² / 2, with a free intercept. One L-BFGS run fits all
    labels; a step costs two matrix products. It is preconditioned so that the initial curvature is 1 in every
    direction: along the eigenvectors of XᵀX, scaled by the eigenvalue and the label's frequency. That takes about
    thirty steps instead of several hundred to the same optimum. The run ends at steps of 0.001, a thousandth of a
    weight's standard error.
    """
    predictions = np.where(has.all(axis=0), 1.0, -1.0) * np.ones((len(tested), 1))
    varied = has.any(axis=0) & ~has.all(axis=0)  # the intercept of any other would run to infinity
    if not varied.any():
        return predictions
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
        predictions[:, varied] = torch.from_numpy(tested.astype(np.float32)) @ weights + bias * bias_unit
    return predictions


def _ridge(fitted: np.ndarray, values: np.ndarray, tested: np.ndarray, labels: int) -> np.ndarray:
    """Return ridge regression's predictions (n, values), the strength of each value chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-1, 5, 7), alpha_per_target=True).fit(fitted, values)
    # A single value comes back without its column.
    return bounded(model.predict(tested).reshape(-1, labels), values)


_FIT: dict[Kind, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "multiclass": _logistic,
    "multilabel": _logistic_of_each,
    "regression": _ridge,
}
