"""The HEAR API on a checkpoint: embeddings of whole sounds, and of moments in them.

As the HEAR benchmark defines it (Turian et al. 2022, "HEAR: Holistic Evaluation of Audio Representations", PMLR 176;
https://hearbenchmark.com/hear-api.html), so that whatever evaluates HEAR models takes `doppel_ray.hear` and a folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import doppel_ray
from doppel_ray import checkpoint
from doppel_ray.audio import Frontend
from doppel_ray.audio.windows import centred, cut, tiles
from doppel_ray.models import Model

BATCH = 64
"""Windows that are embedded at a time."""

HOP = 50.0
"""Milliseconds between timestamps: no more than HEAR's event tasks tolerate."""


class WaveformEncoder(nn.Module):
    """A trained model with its frontend before it: sound in, representation out.

    Args:
        model: in evaluation mode.
        frontend: that the model was trained behind.
        sample_rate: in Hz.
        samples: length of the sounds that the model was trained on.
        whole: a longer sound is read at once, not in windows of that length (`encoder.reading`).

    Attributes:
        sample_rate: of the sounds that it reads, in Hz.
        samples: of a window; shorter sounds are filled up with silence.
        scene_embedding_size: width of a whole sound's embedding.
        timestamp_embedding_size: width of a moment's.
    """

    def __init__(self, model: Model, frontend: Frontend, sample_rate: int, samples: int, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.model, self.frontend = model, frontend
        self.sample_rate, self.samples = sample_rate, samples
        self.scene_embedding_size = self.timestamp_embedding_size = model.size
        self.eval()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, sound: Tensor) -> Tensor:
        """Windows of sound into embeddings: (batch, samples) float32 in [-1, 1] -> (batch, size) float32."""
        return self.model.represent(self.frontend(sound))


def load_model(path: str | Path) -> WaveformEncoder:
    """The model of a checkpoint, or of the safetensors folder that `doppel_ray.export` makes of one; on the CPU.

    Raises:
        ConfigError: there is no such checkpoint, or it is damaged.
    """
    model, recipe = checkpoint.load(Path(path))
    return WaveformEncoder(model, recipe.build_frontend(), recipe.sample_rate, recipe.samples, recipe.window is None)


def describe(path: Path, model: WaveformEncoder) -> dict[str, Any]:
    """What one must know to use the embeddings of a checkpoint's model, and where they are from, as plain data."""
    about = checkpoint.about(path)
    return {
        "sample_rate": model.sample_rate,
        "samples": model.samples,
        "size": model.scene_embedding_size,
        "frontend": about["experiment"]["frontend"]["kind"],
        "encoder": about["experiment"]["encoder"]["kind"],
        "representation": model.model.representation,
        "reading": "whole" if model.whole else "windows",
        "epoch": about["position"].get("epoch"),
        "doppel_ray": doppel_ray.__version__,
    }


def get_scene_embeddings(audio: Tensor, model: WaveformEncoder) -> Tensor:
    """One embedding for each sound, as probes have it: the mean over its windows, or of the sound read whole.

    Args:
        audio: (n_sounds, n_samples) in [-1, 1] at `model.sample_rate`, of any length. It may stay in host memory: its
            windows are brought to the model's device a batch at a time.
        model: from `load_model`.

    Returns:
        (n_sounds, model.scene_embedding_size) float32 on the model's device.
    """
    _check(audio)
    size = max(audio.shape[1], model.samples) if model.whole else model.samples
    return _embed(audio, tiles(audio.shape[1], size), size, model).mean(dim=1)


def get_timestamp_embeddings(audio: Tensor, model: WaveformEncoder, hop: float = HOP) -> tuple[Tensor, Tensor]:
    """An embedding of the window around every timestamp, from the first sample on, as far as the sound goes.

    Args:
        audio: as for `get_scene_embeddings`. What lies outside of it is silent.
        model: from `load_model`.
        hop: milliseconds between timestamps.

    Returns:
        Embeddings (n_sounds, n_timestamps, model.timestamp_embedding_size), and the timestamps in milliseconds
        (n_sounds, n_timestamps), at the middle of their windows; both float32 on the model's device.
    """
    _check(audio)
    if not hop > 0.0:
        raise ValueError(f"hop is {hop} ms: it must be more than 0")
    starts = centred(audio.shape[1], model.samples, hop * model.sample_rate / 1000)
    timestamps = hop * torch.arange(len(starts), dtype=torch.float64, device=model.device)
    return _embed(audio, starts, model.samples, model), timestamps.float().repeat(len(audio), 1)


@torch.inference_mode()
def _embed(audio: Tensor, starts: Sequence[int], size: int, model: WaveformEncoder) -> Tensor:
    """The windows of `size` samples that begin at `starts`, embedded: (n_sounds, len(starts), width), a batch at a
    time.
    """
    embeddings = torch.empty(len(audio), len(starts), model.scene_embedding_size, device=model.device)
    sounds = max(1, BATCH * model.samples // (size * len(starts)))
    for i in range(0, len(audio), sounds):
        for j in range(0, len(starts), BATCH):
            part = cut(audio[i : i + sounds], starts[j : j + BATCH], size).to(model.device)
            embeddings[i : i + sounds, j : j + BATCH] = model(part.flatten(0, 1)).unflatten(0, part.shape[:2])
    return embeddings


def _check(audio: Tensor) -> None:
    if audio.dim() != 2 or not audio.is_floating_point():
        raise ValueError(
            f"audio is {audio.dtype} of shape {tuple(audio.shape)}: expected floating-point (n_sounds, n_samples)"
        )
