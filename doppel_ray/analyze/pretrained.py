"""Pretrained models, by name or local folder, through Hugging Face's transformers (the extra `clap`).

Weights are read from safetensors only, never unpickled, and no code of a model is run.
"""

import importlib.util
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doppel_ray.core.errors import ConfigError

FILES = "config.json, preprocessor_config.json and model.safetensors"


def load(auto_class: str, name: str, option: str) -> tuple[Any, Any]:
    """Return a model in evaluation mode and its feature extractor.

    Args:
        auto_class: transformers' class that loads the model, such as "ClapModel".
        name: a local folder, or a model's name on the Hugging Face hub.
        option: that names it, such as "--clap"; for error messages.

    Raises:
        ConfigError: transformers is missing, or the model does not exist, is of another class, or has no safetensors.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"{option} {name} needs transformers: pip install 'doppel_ray[clap]'")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    there = Path(name).is_dir()
    # Offline, models downloaded before still load; without this, transformers retries for most of a minute.
    local = there or not _online()
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(name, local_files_only=local)
        model, report = getattr(transformers, auto_class).from_pretrained(
            name, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers and the libraries below it raise many kinds
        if local and not there:
            reason = "no such folder, not downloaded before, and the Hugging Face hub cannot be reached"
        else:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"{option} {name} cannot be loaded: {reason}\nexpected a folder with {FILES}, or a model's name on the hub"
        ) from None
    # transformers only warns about missing weights and initialises them at random.
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"{option} {name} is not a {auto_class}: it lacks {len(missing)} of its weights, such as {missing[0]}"
        )
    return model.eval(), extractor


def _online() -> bool:
    """Return whether the Hugging Face hub responds."""
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class FeatureExtractor:
    """Computes a pretrained model's inputs: resamples sounds and applies its feature extractor.

    Args:
        extractor: transformers' feature extractor.
        sample_rate: of the given sounds, in Hz.
    """

    def __init__(self, extractor: Any, sample_rate: int) -> None:
        from torchaudio.transforms import Resample

        self.extractor = extractor
        self.resample = Resample(sample_rate, extractor.sampling_rate)

    def __call__(self, sounds: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Return the model's inputs for sounds (n, samples)."""
        resampled = list(self.resample(sounds).numpy())
        inputs = self.extractor(resampled, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        return {name: value.to(device) for name, value in inputs.items()}
