"""Sounds of any length into embeddings, by a model or by the mel statistics that are the baseline."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from doppel_ray.audio import Frontend
from doppel_ray.audio.frontend import VGGish
from doppel_ray.audio.windows import windows
from doppel_ray.models import Model
from doppel_ray.probe.sounds import stream
from doppel_ray.probe.task import Sounds

Embedder = Callable[[Tensor], Tensor]
"""(windows, samples) float32 -> (windows, size)."""


def by_model(model: Model, frontend: Frontend, device: torch.device | str = "cpu") -> Embedder:
    """The model's representation (`encoder.representation`), in evaluation mode, computed on `device`."""
    model, frontend = model.to(device).eval(), frontend.to(device)
    return lambda windows: model.represent(frontend(windows.to(device))).cpu()


def by_mel_statistics(frontend: VGGish) -> Embedder:
    """Mean and standard deviation over time of each log-mel band, of the whole sound (`window=None`).

    A sound is not padded, so that its silence is its own; but one shorter than the two frames (35 ms) that have a
    deviation is followed by zeros.

    Args:
        frontend: VGGish's, whatever the model reads.
    """
    least = frontend.window_length + frontend.hop_length

    def embed(sounds: Tensor) -> Tensor:
        bands = frontend(pad(sounds, (0, max(0, least - sounds.shape[1])))).squeeze(1)
        return torch.cat([bands.mean(dim=1), bands.std(dim=1)], dim=1)

    return embed


@torch.inference_mode()
def embed(
    sounds: Sounds,
    items: Sequence[int],
    embedder: Embedder,
    window: int | None,
    least: int = 1,
    batch: int = 64,
) -> np.ndarray:
    """One embedding for each sound: the mean over its windows.

    Sounds are read as they are needed; a batch of windows is all that is held.

    Args:
        sounds: of the task.
        items: which of them.
        embedder: windows -> embeddings.
        window: samples of a window, or None for each whole sound at once. Windows do not overlap, but for the last one,
            which ends with the sound; a sound shorter than a window is padded with zeros.
        least: samples of the shortest whole sound; one that is shorter is padded with zeros.
        batch: windows embedded at once; of whole sounds, those in a row that are of one length.

    Returns:
        (items, size) float32. The row of a sound that cannot be read is NaN, and `sounds.failed` says why; where none
        can be read, size is 0.
    """
    sums = torch.empty(len(items), 0)
    windows_of = torch.zeros(len(items))
    for rows, parts in _batches(_windows(sounds, items, window, least), batch):
        vectors = embedder(parts).float()
        if sums.shape[1] == 0:
            sums = torch.zeros(len(items), vectors.shape[1])
        sums.index_add_(0, rows, vectors)
        windows_of.index_add_(0, rows, torch.ones(len(rows)))
    return (sums / windows_of.unsqueeze(1)).numpy()


def _windows(sounds: Sounds, items: Sequence[int], window: int | None, least: int) -> Iterator[tuple[int, Tensor]]:
    """Row of its sound, and samples, of each window."""
    for row, sound in enumerate(stream(sounds, items)):
        if sound is None:
            continue
        for part in windows(sound, window or max(len(sound), least)):
            yield row, part


def _batches(windows: Iterator[tuple[int, Tensor]], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (n,) and windows (n, samples), of one length, n at most `batch`."""
    for _, alike in itertools.groupby(windows, key=lambda pair: len(pair[1])):
        while chunk := list(itertools.islice(alike, batch)):
            rows, parts = zip(*chunk, strict=True)
            yield torch.tensor(rows), torch.stack(parts)
