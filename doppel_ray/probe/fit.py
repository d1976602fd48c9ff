"""From embeddings to scores: linear models fitted on some folds and tested on the one left out.

scikit-learn takes two seconds to import, and most processes that import this package never fit anything: it is imported
where it is used.
"""

import warnings

import numpy as np


def classify(
    embeddings: np.ndarray, classes: np.ndarray, folds: np.ndarray, test_folds: tuple[int, ...] | None = None
) -> dict[str, float]:
    """Logistic regression on standardised embeddings, cross-validated.

    Args:
        embeddings: (n, size).
        classes: (n,) class numbers.
        folds: (n,) fold of each example.
        test_folds: folds to test on, each with a model of all the others; None: every one.

    Returns:
        "accuracy", the mean over the folds, and "fold_<k>" for each.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = {}
    for fold in np.unique(folds) if test_folds is None else test_folds:
        train, test = folds != fold, folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        with warnings.catch_warnings():
            # Small sets are separable in 500 dimensions: the weights never settle, the labels do long before.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(embeddings[train], classes[train])
        scores[f"fold_{fold}"] = float(model.score(embeddings[test], classes[test]))
    return {"accuracy": float(np.mean(list(scores.values()))), **scores}


def regress(embeddings: np.ndarray, targets: dict[str, np.ndarray], folds: np.ndarray) -> dict[str, float]:
    """Ridge regression on standardised embeddings, cross-validated; its strength is chosen on the training folds,
    for each target on its own.

    Args:
        embeddings: (n, size).
        targets: name -> (n,) values.
        folds: (n,) fold of each example.

    Returns:
        R² of each target over all test predictions, and "score", their mean.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = np.stack(list(targets.values()), axis=1)
    predicted = np.empty_like(values)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 7), alpha_per_target=True))
        model.fit(embeddings[train], values[train])
        # A single target comes back without its column.
        predicted[test] = model.predict(embeddings[test]).reshape(-1, values.shape[1])
    residual = ((values - predicted) ** 2).sum(axis=0)
    total = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    scores = dict(zip(targets, (1.0 - residual / total).tolist(), strict=True))
    return {"score": float(np.mean(list(scores.values()))), **scores}
