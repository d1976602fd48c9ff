"""Protocols: fit on the embeddings of a task's training examples, predict the others, score the predictions.

- `linear`: logistic or ridge regression, fast enough to follow every epoch of a sweep.
- `mlp`: the shallow networks of HEAR's hear-eval-kit, chosen on the validation examples.
- `knn`: the nearest training examples vote.

All standardise embeddings by the mean and deviation of the rows that they fit.
"""

from doppel_ray.probe.protocols.config import NamedProtocol, ProtocolConfig
from doppel_ray.probe.protocols.scores import check_names, choosing, columns, predict, score_embeddings

__all__ = ["NamedProtocol", "ProtocolConfig", "check_names", "choosing", "columns", "predict", "score_embeddings"]
