"""Nearest neighbours: the nearest training examples vote, weighted as by Wu et al. (2018)."""

import numpy as np
import torch
from torch import nn

from doppel_ray.probe.protocols.common import standardised, target_columns
from doppel_ray.probe.protocols.config import ProtocolConfig
from doppel_ray.probe.task import TaskSpec

TEMPERATURE = 0.07
"""Wu et al. (2018): a neighbour at cosine similarity s votes with weight exp(s / 0.07)."""


def predict(
    protocol: ProtocolConfig, embeddings: np.ndarray, spec: TaskSpec, fit: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Return the weighted mean of the targets of the neighbours of `rows` among the examples `fit`: (rows, labels).

    It is the share of the votes for classes and labels, the prediction for values. Embeddings are standardised.
    Wu et al. take 200 neighbours among a million images.
    """
    targets = torch.from_numpy(target_columns(spec))
    near, others = (
        nn.functional.normalize(torch.from_numpy(vectors), dim=1)
        for vectors in standardised(embeddings[fit], embeddings[rows])
    )
    predictions = []
    for some in others.split(256):
        similarity, which = (some @ near.T).topk(min(protocol.neighbours, len(fit)), dim=1)
        votes = (similarity.double() / TEMPERATURE).softmax(dim=1)
        predictions.append(torch.einsum("nk,nkl->nl", votes, targets[torch.from_numpy(fit)[which]]))
    return torch.cat(predictions).numpy()
