"""Find fingerprints: what the two views of a pair share besides their parameters.

If a random draw (a noise, a level, a mask) is in both views of a pair and in no other pair, the contrastive objective
finds it and learns nothing about sound. The check renders views of *unrelated* parameters under one index: whatever
still identifies the partner is a fingerprint.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from doppel_ray.analyze.distances import log_mel


def partners_found(views: Tensor, sample_rate: int) -> dict[str, float]:
    """Return the share of first views whose nearest second view is their partner, by three measures; chance is 1 / n.

    Args:
        views: (2, n, samples); pair i is `views[:, i]`.
        sample_rate: in Hz.

    Returns:
        "waveform": by the correlation coefficient. "second difference": the same after differencing twice, which
        emphasises noise. "log-mel": by the mean absolute difference of log-mel spectrograms.
    """
    first, second = views
    differenced = views.diff(n=2)
    mels = log_mel(views.flatten(0, 1), sample_rate).flatten(1).unflatten(0, (2, -1))
    nearness = {
        "waveform": _correlation(first, second),
        "second difference": _correlation(differenced[0], differenced[1]),
        "log-mel": -torch.cdist(mels[0], mels[1], p=1),
    }
    partner = torch.arange(len(first), device=views.device)
    return {name: (near.argmax(dim=1) == partner).double().mean().item() for name, near in nearness.items()}


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return correlation coefficients, (n, n), of every row of one with every row of the other; 0 for silent rows."""
    centred = [rows - rows.mean(dim=1, keepdim=True) for rows in (first, second)]
    first, second = (F.normalize(rows.double(), dim=1) for rows in centred)
    return first @ second.T
