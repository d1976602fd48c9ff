"""Checkpoints: safetensors for the weights, JSON for what they are, and a resume file read with `weights_only=True`.

A checkpoint is a folder:

    model.safetensors   weights and buffers of encoder and head
    checkpoint.json     format, experiment, classes of its labels, position in the stream, metrics
    resume.pt           what else training goes on from; not needed to use the model
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from doppel_ray.audio import FrontendConfig
from doppel_ray.models import EncoderConfig, HeadConfig, Model
from doppel_ray.section import ConfigError
from doppel_ray.synth import SynthConfig

FORMAT = 1


@dataclass(frozen=True)
class Position:
    """Where training stands."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Optimizer steps done."""
    next_index: int = 0
    """First index of the stream that no step has used."""


def save(
    folder: Path,
    model: Model,
    experiment: dict[str, Any],
    position: Position,
    metrics: dict[str, float],
    resume: dict[str, Any],
    classes: Sequence[str] = (),
) -> None:
    """Write a checkpoint into an existing folder."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    torch.save(resume, folder / "resume.pt")
    about = {
        "format": FORMAT,
        "position": asdict(position),
        "metrics": metrics,
        "classes": list(classes),
        "experiment": experiment,
    }
    # Last, so that a folder with this file is a whole checkpoint.
    (folder / "checkpoint.json").write_text(json.dumps(about, indent=1))


def about(folder: Path) -> dict[str, Any]:
    """What `checkpoint.json` of a checkpoint says.

    Raises:
        ConfigError: the folder holds no checkpoint, a damaged one, or one of an unknown format.
    """
    try:
        found = json.loads((folder / "checkpoint.json").read_text())
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no checkpoint: checkpoint.json is missing") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{folder}/checkpoint.json is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{folder}/checkpoint.json is damaged: it holds a {type(found).__name__}")
    if found.get("format") != FORMAT:
        raise ConfigError(f"{folder} has checkpoint format {found.get('format')!r}; this version reads {FORMAT}")
    return found


def position(folder: Path) -> Position:
    return Position(**about(folder)["position"])


def load_weights(folder: Path, model: Model) -> None:
    """Load a checkpoint's weights into a model of the same shape.

    Raises:
        ConfigError: the weights are truncated, or belong to another architecture.
    """
    file = folder / "model.safetensors"
    try:
        weights = load_file(file)
    except Exception as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{file} belongs to another architecture: {str(error).splitlines()[-1].strip()}") from error


def load_encoder(folder: Path, model: Model) -> None:
    """Load the encoder of a checkpoint into a model, and leave the rest of the model as it is.

    Raises:
        ConfigError: there is no such checkpoint, or its encoder is another.
    """
    trained, _ = load(folder)
    try:
        model.encoder.load_state_dict(trained.encoder.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"train.init is {folder}, whose encoder is another: {str(error).splitlines()[-1].strip()}"
        ) from error


def load_resume(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "resume.pt", weights_only=True, map_location="cpu")


@dataclass(frozen=True)
class Recipe:
    """The sections of an experiment that decide what a model is and reads."""

    synth: SynthConfig
    frontend: FrontendConfig
    encoder: EncoderConfig
    head: HeadConfig
    seed: int
    classes: int = 0

    @classmethod
    def of(cls, experiment: dict[str, Any], classes: Sequence[str] = ()) -> "Recipe":
        """From an experiment as a plain dictionary, such as a checkpoint holds, and the classes of its labels."""
        return cls(
            synth=SynthConfig.model_validate(experiment["synth"]),
            frontend=FrontendConfig.model_validate(experiment["frontend"]),
            encoder=EncoderConfig.model_validate(experiment["encoder"]),
            head=HeadConfig.model_validate(experiment["head"]),
            seed=experiment["run"]["seed"],
            classes=len(classes),
        )

    def reading(self) -> tuple[int | None, int]:
        """Samples of the windows that a recording is read in, None for all of it at once; and of the shortest."""
        trained = round(self.synth.duration * self.synth.sample_rate)
        return (None if self.encoder.reading == "whole" else trained), trained

    def untrained(self) -> Model:
        """The model as training starts with it."""
        channels = self.frontend.build(self.synth.sample_rate).channels
        return Model(self.encoder, self.head, self.seed, channels, self.classes)


def recipe(folder: Path) -> Recipe:
    """What the model of a checkpoint is and reads."""
    found = about(folder)
    return Recipe.of(found["experiment"], found["classes"])


def load(folder: Path) -> tuple[Model, Recipe]:
    """The trained model of a checkpoint, in evaluation mode, and its recipe."""
    found = recipe(folder)
    model = found.untrained()
    load_weights(folder, model)
    return model.eval(), found
