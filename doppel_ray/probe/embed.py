"""Sounds of any length into embeddings, by a model or by the mel statistics that are the baseline."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from doppel_ray.audio import Frontend
from doppel_ray.models import Model
from doppel_ray.probe.tasks import Examples

BATCH = 64

Embedder = Callable[[Tensor], Tensor]
"""(windows, samples) float32 -> (windows, size)."""


def by_model(model: Model, frontend: Frontend) -> Embedder:
    """The model's representation (`encoder.representation`), in evaluation mode."""
    model.eval()
    return lambda windows: model.represent(frontend(windows))


def by_mel_statistics(frontend: Frontend) -> Embedder:
    """Mean and standard deviation over time of each log-mel band, of the whole sound.

    Args:
        frontend: VGGish's, whatever the model reads.
    """

    def embed(windows: Tensor) -> Tensor:
        bands = frontend(windows).squeeze(1)
        return torch.cat([bands.mean(dim=1), bands.std(dim=1)], dim=1)

    return embed


@torch.inference_mode()
def embed(examples: Examples, embedder: Embedder, window: int | None) -> np.ndarray:
    """One embedding for each sound: the mean over its windows.

    Args:
        examples: the sounds.
        embedder: windows -> embeddings.
        window: samples of a window, or None for the whole sound at once. Windows do not overlap, but for the last one,
            which ends with the sound; a sound shorter than a window is padded with zeros.

    Returns:
        (n, size) float32.
    """
    windows, owners = [], []
    for k, (sound, length) in enumerate(zip(examples.sounds, examples.lengths, strict=True)):
        size = window or examples.sounds.shape[1]
        sound = sound[: max(int(length), size)]
        if len(sound) < size:
            sound = torch.nn.functional.pad(sound, (0, size - len(sound)))
        starts = [*range(0, len(sound) - size, size), len(sound) - size]
        windows += [sound[start : start + size] for start in starts]
        owners += [k] * len(starts)
    vectors = torch.cat([embedder(torch.stack(windows[i : i + BATCH])) for i in range(0, len(windows), BATCH)]).float()
    owner = torch.tensor(owners)
    sums = torch.zeros(len(examples.sounds), vectors.shape[1]).index_add_(0, owner, vectors)
    return (sums / torch.bincount(owner).unsqueeze(1)).numpy()
