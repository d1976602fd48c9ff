"""Embedding spaces, in which sounds are compared."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.analyze import pretrained
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.hear import get_scene_embeddings, load_model
from doppel_ray.probe.embed import by_mel_statistics

Name = Literal["mel", "checkpoint", "clap"]


class SpacesConfig(Section):
    """The embedding spaces to compare sounds in."""

    space: tuple[Name, ...] | None = Field(None, min_length=1)
    """mel: mean and deviation over time of 64 log-mel bands. checkpoint: that of --checkpoint. clap: that of --clap.
    Default: clap if given, else checkpoint if given, else mel; for `all`, all of these that are given."""
    checkpoint: Path | None = None
    """A checkpoint's folder, or a safetensors folder from doppel_ray.export."""
    clap: str | None = None
    """A CLAP model: a local folder, or a name such as laion/clap-htsat-unfused (the extra `clap`)."""
    batch: int = Field(32, ge=1)
    """Sounds embedded at a time."""

    @model_validator(mode="after")
    def _given(self) -> "SpacesConfig":
        for name in self.space or ():
            if name != "mel" and getattr(self, name) is None:
                raise ValueError(f"space is {name}, but there is none: give it with --{name}")
        return self

    def names(self, every: bool) -> tuple[Name, ...]:
        """Return the spaces to compare in; with `every` and no choice, all that are available."""
        if self.space is not None:
            return tuple(dict.fromkeys(self.space))
        optional: tuple[Name, ...] = ("checkpoint", "clap")
        given: tuple[Name, ...] = ("mel", *(name for name in optional if getattr(self, name) is not None))
        return given if every else given[-1:]

    def build(self, name: Name, sample_rate: int, device: torch.device) -> "EmbeddingSpace":
        """Return a space for sounds at `sample_rate` Hz, its model on `device`.

        Raises:
            ConfigError: its model cannot be loaded.
        """
        if name == "mel":
            return Mel(sample_rate, self.batch)
        if name == "checkpoint":
            assert self.checkpoint is not None
            return Checkpoint(self.checkpoint, sample_rate, self.batch, device)
        assert self.clap is not None
        return Clap(self.clap, sample_rate, self.batch, device)


class EmbeddingSpace(ABC):
    """An embedding space.

    Attributes:
        name: for titles and files.
        batch: sounds embedded at a time.
        cosine: the space was trained for cosine similarity. In other spaces embeddings share a large mean and some
            dimensions vary a hundred times more than others, so that all cosines are near 1: `levelled` standardises
            embeddings there.
    """

    name: Name
    cosine: bool = False

    def __init__(self, batch: int) -> None:
        self.batch = batch

    @abstractmethod
    def embed(self, sounds: Tensor) -> Tensor:
        """Embed sounds (n, samples), n at most `batch`: (n, size) float32 on the CPU."""

    @torch.inference_mode()
    def __call__(self, sounds: Tensor) -> Tensor:
        """Embed sounds (..., samples): (..., size) float32 on the CPU."""
        flat = sounds.flatten(0, -2)
        return torch.cat([self.embed(part) for part in flat.split(self.batch)]).unflatten(0, sounds.shape[:-1])

    def levelled(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """Standardise groups of embeddings (..., size) unless the space is `cosine`; all groups weigh the same."""
        if self.cosine:
            return list(groups)
        means = torch.stack([group.flatten(0, -2).mean(dim=0) for group in groups])
        squares = torch.stack([group.flatten(0, -2).square().mean(dim=0) for group in groups])
        centre = means.mean(dim=0)
        scale = (squares.mean(dim=0) - centre.square()).clamp(min=0.0).sqrt()
        scale = torch.where(scale > 1e-6, scale, torch.inf)  # constant dimensions become 0
        return [(group - centre) / scale for group in groups]


class Mel(EmbeddingSpace):
    """Mean and standard deviation over time of 64 log-mel bands, the baseline of the probes."""

    name = "mel"

    def __init__(self, sample_rate: int, batch: int) -> None:
        super().__init__(batch)
        self.embedder = by_mel_statistics(sample_rate)

    def embed(self, sounds: Tensor) -> Tensor:
        return self.embedder.embed(sounds)


class Checkpoint(EmbeddingSpace):
    """The representation of a checkpoint's model, as in the probes."""

    name = "checkpoint"

    def __init__(self, folder: Path, sample_rate: int, batch: int, device: torch.device) -> None:
        super().__init__(batch)
        self.model = load_model(folder).to(device)
        if self.model.sample_rate != sample_rate:
            raise ConfigError(
                f"{folder} reads sound at {self.model.sample_rate} Hz and synth.sample_rate is {sample_rate}; "
                f"give --synth.sample_rate {self.model.sample_rate}"
            )

    def embed(self, sounds: Tensor) -> Tensor:
        return get_scene_embeddings(sounds, self.model).cpu()


class Clap(EmbeddingSpace):
    """CLAP's audio embeddings (Wu et al., ICASSP 2023): the space of the paper's figure 2.

    Args:
        name: of the model, or its folder.
        sample_rate: of the sounds, in Hz; they are resampled to CLAP's rate.
        batch: sounds embedded at a time.
        device: of the model.
    """

    name = "clap"
    cosine = True

    def __init__(self, name: str, sample_rate: int, batch: int, device: torch.device) -> None:
        super().__init__(batch)
        self.model, extractor = pretrained.load("ClapModel", name, "--clap")
        self.model, self.device = self.model.to(device), device
        self.extract_features = pretrained.FeatureExtractor(extractor, sample_rate)

    def embed(self, sounds: Tensor) -> Tensor:
        output = self.model.get_audio_features(**self.extract_features(sounds, self.device))
        # A tensor; since transformers 5 an output with the tensor in it.
        vectors = output if isinstance(output, Tensor) else output.pooler_output
        return torch.nn.functional.normalize(vectors, dim=-1).cpu()
