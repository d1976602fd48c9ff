"""Sounds of any length as windows of one length, which is what an encoder was trained on.

A window is named by where it starts, in samples; one may start before the sound or end after it, and is silent there.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def tiles(samples: int, size: int) -> list[int]:
    """Starts of the windows that cover a sound: side by side, but for the last one, which ends with the sound.

    Args:
        samples: length of the sound; one that is shorter than a window has one window, filled up with silence.
        size: samples of a window.
    """
    last = max(samples - size, 0)
    return [*range(0, last, size), last]


def centred(samples: int, centre: int, hop: float) -> list[int]:
    """Starts of windows around the times 0, hop, 2 · hop, ..., as far as the sound goes.

    Args:
        samples: length of the sound.
        centre: the sample of a window that falls on such a time.
        hop: samples between the times; they are rounded one by one, so that no error adds up.
    """
    return [round(k * hop) - centre for k in range(int(samples / hop) + 1)]


def cut(sound: Tensor, starts: Sequence[int], size: int) -> Tensor:
    """The windows that begin at `starts`, with zeros where the sound is not.

    Args:
        sound: (..., samples).
        starts: ascending.
        size: samples of a window.

    Returns:
        (..., len(starts), size).
    """
    first, end = starts[0], starts[-1] + size
    within = sound[..., max(first, 0) : max(end, 0)]
    before = min(max(-first, 0), size)
    span = F.pad(within, (before, end - first - before - within.shape[-1]))
    return span.unfold(-1, size, 1)[..., torch.tensor(starts, device=sound.device) - first, :]
