"""Reading recordings."""

from pathlib import Path

import torch
from torch import Tensor


class UnreadableAudioError(ValueError):
    """A file that is missing, empty or not audio. The message names it."""


def length(path: Path) -> float:
    """Duration of a file in seconds, from its header alone.

    Raises:
        UnreadableAudioError: the header cannot be read, or says that there is no sound.
    """
    import soundfile

    try:
        info = soundfile.info(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise UnreadableAudioError(f"{path}: {_reason(error)}") from None
    if info.frames == 0:
        raise UnreadableAudioError(f"{path}: zero-length audio")
    return info.frames / info.samplerate


def read(path: Path, sample_rate: int) -> Tensor:
    """A file as mono sound at `sample_rate` Hz: (samples,) float32.

    Raises:
        UnreadableAudioError: the file cannot be decoded, or holds no sound.
    """
    import soundfile
    import torchaudio.functional

    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise UnreadableAudioError(f"{path}: {_reason(error)}") from None
    if len(data) == 0:
        raise UnreadableAudioError(f"{path}: zero-length audio")
    sound = torch.from_numpy(data).mean(dim=1)
    return torchaudio.functional.resample(sound, rate, sample_rate) if rate != sample_rate else sound


def _reason(error: Exception) -> str:
    text = str(error)
    return text.rpartition(": ")[2].rstrip(".") or type(error).__name__
