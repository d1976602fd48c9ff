"""An exported model gives the same embeddings and describes how to use it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doppel_ray import export
from doppel_ray.core.errors import ConfigError
from doppel_ray.hear import describe, get_scene_embeddings, load_model
from doppel_ray.models import checkpoint
from doppel_ray.models.encoders import ENCODERS
from tests.conftest import REPOSITORY
from tests.test_hear import noise, write_checkpoint

pytestmark = pytest.mark.slow  # seconds for each test

FRONTENDS = {"spectrogram": "vggish", "waveform": "raw"}
MODELS = {
    f"{frontend}-{encoder}": {"encoder": {"kind": encoder, "width": 8}, "frontend": {"kind": frontend}}
    for encoder, frontend in [*((name, FRONTENDS[kind.domain]) for name, kind in ENCODERS.items()), ("cnn", "clar")]
}
"""Every encoder and every frontend."""
SMALL = MODELS["vggish-cnn"]
DESCRIBED = {"sample_rate": 16000, "samples": 16000, "size": 128, "encoder": "cnn", "frontend": "vggish"}


def run(folder: Path, to: str, out: Path, *more: str) -> int:
    return export.main(["--checkpoint", str(folder), "--to", to, "--out", str(out), *more])


def test_safetensors_folder_loads_without_ray(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "here", SMALL, classes=("dog", "rain"))
    assert run(folder, "safetensors", tmp_path / "away") == 0
    assert {file.name for file in (tmp_path / "away").iterdir()} == {"model.safetensors", "checkpoint.json"}
    for name, value in checkpoint.load(folder)[0].state_dict().items():
        assert torch.equal(checkpoint.load(tmp_path / "away")[0].state_dict()[name], value), name
    code = f"import sys; sys.modules['ray'] = None; from doppel_ray.hear import load_model; load_model({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize("name", ["vggish-framenet", "clar-cnn"])
def test_torch_program(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "here", MODELS[name])
    assert run(folder, "torch", tmp_path / "away.pt2") == 0
    about = {export.METADATA: ""}
    program = torch.export.load(tmp_path / "away.pt2", extra_files=about).module()
    model, sound = load_model(folder), noise(5, 16000)
    torch.testing.assert_close(program(sound), model(sound), rtol=1e-4, atol=1e-4)
    assert json.loads(about[export.METADATA])["size"] == model.scene_embedding_size


READINGS = [
    ("vggish-cnn", "windows"),
    ("vggish-framenet", "whole"),
    ("clar-resnet18", "whole"),
    ("raw-resnet18_1d", "whole"),
]
MODELS["clar-resnet18"] = {"encoder": {"kind": "resnet18", "width": 8}, "frontend": {"kind": "clar"}}


def by_program(program: Callable[[torch.Tensor], torch.Tensor], about: dict[str, str], clip: torch.Tensor) -> Any:
    """A clip's embedding by what an exported program's metadata say, and nothing of doppel_ray."""
    shortest, longest = int(about["shortest"]), int(about["longest"])
    clip = torch.nn.functional.pad(clip, (0, max(0, shortest - len(clip))))
    size = min(len(clip), longest)
    starts = [*range(0, len(clip) - size, size), len(clip) - size]
    return program(torch.stack([clip[start : start + size] for start in starts])).mean(dim=0)


@pytest.mark.parametrize(
    ("name", "reading", "to"),
    [*((*which, "onnx") for which in READINGS), *((*which, "torch") for which in READINGS[:2])],
)
def test_programs_agree_on_clips_of_any_length(tmp_path: Path, name: str, reading: str, to: str) -> None:
    settings = MODELS[name] | {"encoder": MODELS[name]["encoder"] | {"reading": reading}}
    folder, out = write_checkpoint(tmp_path / "here", settings), tmp_path / f"away.{to}"
    program: Callable[[torch.Tensor], torch.Tensor]
    if to == "torch":
        assert run(folder, to, out) == 0
        extra = {export.METADATA: ""}
        with out.open("rb") as file:
            program = torch.export.load(file, extra_files=extra).module()
        about = json.loads(extra[export.METADATA])
    else:
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs doppel_ray[export]")
        pytest.importorskip("onnxscript", reason="needs doppel_ray[export]")
        assert run(folder, to, out) == 0
        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map
        program = lambda sound: torch.from_numpy(session.run(None, {"sound": sound.numpy()})[0])  # noqa: E731
    model = load_model(folder)
    assert about["reading"] == reading
    for samples in (9000, 16000, 16001, 30400, 50000):
        clip = noise(1, samples)
        expected = get_scene_embeddings(clip, model)[0]
        scale = max(1.0, expected.abs().amax().item())
        torch.testing.assert_close(by_program(program, about, clip[0]), expected, rtol=0.0, atol=1e-4 * scale)


def test_program_of_a_model_trained_on_half_seconds(tmp_path: Path) -> None:
    """Its program reads longer clips whole."""
    settings = {"encoder": {"kind": "cnn", "width": 8, "reading": "whole"}, "synth": {"duration": 0.5}}
    folder = write_checkpoint(tmp_path / "here", settings)
    assert run(folder, "torch", tmp_path / "away.pt2") == 0
    program, model = torch.export.load(tmp_path / "away.pt2").module(), load_model(folder)
    for samples in (8000, 15600, 30400):
        clip = noise(1, samples)
        torch.testing.assert_close(program(clip), get_scene_embeddings(clip, model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_onnx_model(tmp_path: Path, name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs doppel_ray[export]")
    pytest.importorskip("onnxscript", reason="needs doppel_ray[export]")
    folder = write_checkpoint(tmp_path / "here", MODELS[name])
    assert run(folder, "onnx", tmp_path / "away.onnx") == 0
    session = onnxruntime.InferenceSession(tmp_path / "away.onnx", providers=["CPUExecutionProvider"])
    model, sound = load_model(folder), noise(5, 16000)
    expected = model(sound)
    (found,) = session.run(["embedding"], {"sound": sound.numpy()})
    scale = max(1.0, expected.abs().amax().item())
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0.0, atol=1e-4 * scale)
    about = session.get_modelmeta().custom_metadata_map
    assert about["samples"] == about["sample_rate"] == "16000"
    assert about["size"] == str(expected.shape[1])


def test_metadata(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "here", SMALL)
    assert DESCRIBED.items() <= describe(folder, load_model(folder)).items()


@given(st.lists(st.floats(-2.0, 2.0, width=32) | st.sampled_from([0.0, -1.0, 1.0]), min_size=2, max_size=2))
def test_atan2(point: list[float]) -> None:
    y, x = torch.tensor(point) + 0.0
    torch.testing.assert_close(export.atan2(y, x), torch.atan2(y, x))


def test_export_that_differs_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "here", SMALL)
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert run(folder, "torch", tmp_path / "away.pt2") == 1
    assert "differs from the model by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def refusal(*arguments: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        run(*arguments)
    return str(refused.value)


def test_overwrite(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "here", SMALL)
    assert "--overwrite" in refusal(folder, "safetensors", folder)
    assert "never overwritten" in refusal(folder, "safetensors", folder, "--overwrite")
    assert "never overwritten" in refusal(folder, "torch", folder, "--overwrite")
    assert (folder / "resume.pt").exists()
    for more in ([], ["--overwrite"]):
        assert run(folder, "safetensors", tmp_path / "away", *more) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "here"]


def test_missing_onnx_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "here", SMALL)
    monkeypatch.setattr(export, "ONNX", ("onnx_that_is_not_there",))
    message = refusal(folder, "onnx", tmp_path / "away.onnx")
    assert message == "--to onnx needs onnx_that_is_not_there: pip install 'doppel_ray[export]'"


def test_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "holds no checkpoint" in refusal(tmp_path, "torch", tmp_path / "away.pt2")
