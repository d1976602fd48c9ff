"""Checkpoints come back whole, and what is damaged is refused by name."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from doppel_ray.config.experiment import Experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.models import Model, checkpoint
from doppel_ray.models.checkpoint import Position

SMALL = {"encoder": {"kind": "cnn", "width": 8}, "head": {"kind": "mlp", "hidden": 16, "size": 8}, "run": {"seed": 3}}


def write(folder: Path, **changes: Any) -> Model:
    """A checkpoint of a small model whose weights are not those of its seed."""
    experiment = Experiment.model_validate(SMALL | changes)
    model = Model(experiment.encoder, experiment.head, seed=99)
    optimizer = torch.optim.AdamW(model.parameters())
    folder.mkdir()
    resume = {"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    checkpoint.save(folder, model, experiment.plain(), Position(2, 10, 1280), {"loss": 1.5}, resume)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "epoch_0002")
    return tmp_path / "epoch_0002"


def test_save_and_load(tmp_path: Path) -> None:
    """A checkpoint restores the weights, the position and the resume state."""
    model = write(tmp_path / "here")
    loaded, recipe = checkpoint.load(tmp_path / "here")
    assert not loaded.training
    assert recipe.seed == 3
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert checkpoint.position(tmp_path / "here") == Position(epoch=2, step=10, next_index=1280)
    assert torch.equal(checkpoint.load_resume(tmp_path / "here")["rng"], torch.get_rng_state())


def test_untrained_equals_the_initial_model(folder: Path) -> None:
    loaded, recipe = checkpoint.load(folder)
    twin, again = recipe.untrained().state_dict(), recipe.untrained().state_dict()
    assert all(torch.equal(twin[name], again[name]) for name in twin)
    assert not torch.equal(twin["head.0.weight"], loaded.state_dict()["head.0.weight"])


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        checkpoint.load(folder)
    return str(refused.value)


def test_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} holds no checkpoint: checkpoint.json is missing"


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_truncated_weights_are_refused(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert re.search(r"model\.safetensors cannot be read: \w", refusal(folder))


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors cannot be read" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}'])
def test_damaged_description_is_refused(folder: Path, text: str) -> None:
    (folder / "checkpoint.json").write_text(text)
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": {"kind": "resnet18", "width": 8}},
        {"encoder": {"kind": "cnn", "width": 16}},
        {"head": {"kind": "none"}},
    ],
)
def test_weights_of_another_architecture_are_refused(folder: Path, change: dict[str, Any]) -> None:
    about = json.loads((folder / "checkpoint.json").read_text())
    about["experiment"] |= change
    (folder / "checkpoint.json").write_text(json.dumps(about))
    assert "model.safetensors belongs to another architecture" in refusal(folder)


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The checkpoint with another description."""
    about = json.loads((folder / "checkpoint.json").read_text())
    change(about)
    (folder / "checkpoint.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("field", ["classes", "experiment", "position", "metrics"])
def test_description_without_a_field_is_refused(folder: Path, field: str) -> None:
    message = refusal(changed(folder, lambda about: about.pop(field)))
    assert f"{folder}/checkpoint.json lacks the field '{field}': an older version of doppel_ray wrote it" in message


def test_description_without_classes_can_be_mended(folder: Path) -> None:
    """`classes` came after the first checkpoints, none of which has labels."""
    assert 'add "classes": [] to the file' in refusal(changed(folder, lambda about: about.pop("classes")))
    checkpoint.load(changed(folder, lambda about: about.update(classes=[])))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda about: about.update(classes=3), "classes is 3, expected a list"),
        (lambda about: about["experiment"].pop("head"), "the section 'head' is missing"),
        (lambda about: about["experiment"].pop("run"), "run.seed is None"),
        (lambda about: about["experiment"]["encoder"].update(kind="transformer"), "encoder.kind is 'transformer'"),
        (lambda about: about["experiment"]["frontend"].update(melz=3), "frontend.melz: unknown key"),
        (lambda about: about["experiment"]["synth"].update(sample_rate=8000), "sample_rate is 8000 Hz"),
    ],
)
def test_unreadable_experiment_is_refused(folder: Path, change: Callable[[dict[str, Any]], Any], part: str) -> None:
    """An experiment that this version cannot read is refused with the checkpoint's name."""
    message = refusal(changed(folder, change))
    assert message.startswith(f"{folder}/checkpoint.json ")
    assert part in message


def test_file_as_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\x80")
    assert refusal(tmp_path / "model.pt").startswith(f"{tmp_path / 'model.pt'} holds no checkpoint: ")


def test_resume_state_with_code_is_not_unpickled(folder: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"optimizer": Harmful()}, folder / "resume.pt")
    with pytest.raises((pickle.UnpicklingError, ConfigError)):
        checkpoint.load_resume(folder)
    assert not (tmp_path / "touched").exists()
