"""The HEAR API on a checkpoint: embeddings of whole sounds and of timestamps.

The API is that of the HEAR benchmark (Turian et al. 2022, "HEAR: Holistic Evaluation of Audio Representations", PMLR
176; https://hearbenchmark.com/hear-api.html): its tools take `doppel_ray.hear` and a folder.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import doppel_ray
from doppel_ray.data.audio_files import Decoded
from doppel_ray.data.windows import centred
from doppel_ray.models import checkpoint
from doppel_ray.models.clips import WaveformEncoder, embed_windows

HOP = 50.0
"""Milliseconds between timestamps, within the tolerance of HEAR's event tasks."""


def load_model(path: str | Path) -> WaveformEncoder:
    """Return the model of a checkpoint or of a safetensors folder from `doppel_ray.export`, on the CPU.

    Raises:
        ConfigError: the checkpoint is missing or damaged.
    """
    model, recipe = checkpoint.load(Path(path).expanduser())
    return recipe.waveform_encoder(model)


def describe(path: Path, model: WaveformEncoder) -> dict[str, Any]:
    """Return what a user of a checkpoint's embeddings needs: sizes, rates, lengths and origin, as plain data."""
    about = checkpoint.about(path)
    return {
        "sample_rate": model.sample_rate,
        "samples": model.samples,
        "size": model.scene_embedding_size,
        "frontend": about["experiment"]["frontend"]["kind"],
        "encoder": about["experiment"]["encoder"]["kind"],
        "representation": model.model.representation,
        "reading": "whole" if model.whole else "windows",
        "shortest": model.reading.shortest,
        "longest": model.reading.longest,
        "epoch": about["position"].get("epoch"),
        "doppel_ray": doppel_ray.__version__,
    }


def get_scene_embeddings(audio: Tensor, model: WaveformEncoder) -> Tensor:
    """Embed whole sounds as the probes do: the mean over windows, or the embedding of the sound read whole.

    Args:
        audio: (n_sounds, n_samples) in [-1, 1] at `model.sample_rate`, of any length and any floating-point dtype, on
            any device: windows are copied to the model's device a batch at a time.
        model: from `load_model`.

    Returns:
        (n_sounds, model.scene_embedding_size) float32 on the model's device.

    Raises:
        ValueError: audio has another shape or is not floating-point.
    """
    _check(audio)
    return _embed(audio, None, model).mean(dim=1)


def get_timestamp_embeddings(audio: Tensor, model: WaveformEncoder, hop: float = HOP) -> tuple[Tensor, Tensor]:
    """Embed the window around every timestamp, from the first sample to the end of the sound.

    Args:
        audio: as for `get_scene_embeddings`; windows are padded with zeros at its ends.
        model: from `load_model`.
        hop: milliseconds between timestamps.

    Returns:
        Embeddings (n_sounds, n_timestamps, model.timestamp_embedding_size), and the timestamps in milliseconds
        (n_sounds, n_timestamps), each at the middle of the part of its window that the frontend reads; both float32 on
        the model's device.

    Raises:
        ValueError: as for `get_scene_embeddings`, or `hop` is not above 0.
    """
    _check(audio)
    if not hop > 0.0:
        raise ValueError(f"hop is {hop} ms: it must be more than 0")
    starts = centred(audio.shape[1], model.centre, hop * model.sample_rate / 1000)
    timestamps = hop * torch.arange(len(starts), dtype=torch.float64, device=model.device)
    return _embed(audio, starts, model), timestamps.float().repeat(len(audio), 1)


def _embed(audio: Tensor, starts: list[int] | None, model: WaveformEncoder) -> Tensor:
    """Return embeddings (n_sounds, windows, width) of windows at `starts`; None: of windows that cover each sound."""
    windows = (
        (row, window)
        for row, sound in enumerate(audio)
        for part in model.reading.cut(Decoded(sound.float(), step=1), starts)
        for window in part
    )
    embedded = [vectors for _, vectors in embed_windows(windows, model.embed, model.reading.at_once)]
    return torch.stack(embedded) if embedded else torch.empty(0, 1, model.scene_embedding_size, device=model.device)


def _check(audio: Tensor) -> None:
    if audio.dim() != 2 or not audio.is_floating_point():
        raise ValueError(
            f"audio is {audio.dtype} of shape {tuple(audio.shape)}: expected floating-point (n_sounds, n_samples), "
            "such as float32 in [-1, 1]"
        )
