"""The HEAR API: what HEAR's own validator asks, for sounds of any length, with the numbers that probes have."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doppel_ray import checkpoint
from doppel_ray.audio.windows import centred, cut, windows
from doppel_ray.checkpoint import Position, Recipe
from doppel_ray.config import Experiment
from doppel_ray.hear import get_scene_embeddings, get_timestamp_embeddings, load_model
from doppel_ray.probe.embed import by_model, embed
from doppel_ray.probe.sounds import Rendered
from tests.conftest import REPOSITORY

KINDS: dict[str, dict[str, Any]] = {
    "mel": {"encoder": {"kind": "cnn", "width": 8}},
    "mel, in the trainer": {"encoder": {"kind": "cnn", "width": 8}, "frontend": {"where": "trainer"}},
    "projected": {"encoder": {"kind": "cnn", "width": 8, "representation": "projected"}, "head": {"size": 24}},
    "clar": {"encoder": {"kind": "framenet", "width": 8}, "frontend": {"kind": "clar"}},
    "waveform": {"encoder": {"kind": "resnet18_1d", "width": 8}, "frontend": {"kind": "raw"}},
}


def write_checkpoint(folder: Path, settings: dict[str, Any], classes: tuple[str, ...] = ()) -> Path:
    """An untrained model's."""
    plain = Experiment.model_validate(settings).plain()
    folder.mkdir(parents=True)
    checkpoint.save(folder, Recipe.of(plain, classes).untrained(), plain, Position(), {}, {}, classes)
    return folder


def noise(*shape: int) -> torch.Tensor:
    return torch.empty(shape).uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(0))


@given(samples=st.integers(0, 300), size=st.integers(1, 100))
def test_windows_cover_every_sample_and_stay_within_the_sound(samples: int, size: int) -> None:
    sound = torch.arange(1.0, samples + 1)
    cover = windows(sound, size)
    assert cover.shape[1] == size
    assert set(sound.tolist()) == set(cover.flatten().tolist()) - {0.0}
    assert (0.0 in cover) == (samples < size), "only what is shorter than a window is filled up"
    assert len(cover) == max(1, -(-samples // size)), "no more windows than needed"


@given(samples=st.integers(0, 300), size=st.integers(1, 100), hop=st.floats(0.5, 50.0))
def test_a_window_around_a_moment_holds_the_sound_around_it(samples: int, size: int, hop: float) -> None:
    sound = torch.arange(1.0, samples + 1)
    starts = centred(samples, size, hop)
    for k, window in enumerate(cut(sound, starts, size)):
        middle = round(k * hop)
        assert window[size // 2] == (middle + 1 if middle < samples else 0)
    assert (len(starts) - 1) * hop <= samples < len(starts) * hop + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_has_a_scene_embedding_and_evenly_spaced_timestamps(tmp_path: Path, kind: str) -> None:
    model = load_model(str(write_checkpoint(tmp_path / "here", KINDS[kind])))
    assert model.sample_rate == 16000
    assert isinstance(model.scene_embedding_size, int)
    assert isinstance(model.timestamp_embedding_size, int)
    for samples in (1, 800, 16000, 20001):
        audio = noise(2, samples)
        scenes = get_scene_embeddings(audio, model)
        assert scenes.shape == (2, model.scene_embedding_size)
        assert scenes.dtype == torch.float32
        assert scenes.isfinite().all()
        assert not scenes.requires_grad
        embeddings, timestamps = get_timestamp_embeddings(audio, model)
        assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
        assert timestamps[0].tolist() == [50.0 * k for k in range(samples // 800 + 1)]
        assert torch.equal(timestamps[0], timestamps[1])
        torch.testing.assert_close(get_scene_embeddings(audio[1:], model), scenes[1:], rtol=1e-4, atol=1e-5)


def test_a_timestamp_is_the_scene_of_the_window_around_it(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "here", KINDS["mel"]))
    audio = noise(1, 80000)
    embeddings, timestamps = get_timestamp_embeddings(audio, model, hop=250.0)
    assert len(timestamps[0]) == 21
    around = get_scene_embeddings(audio[:, 32000 - 8000 : 32000 + 8000], model)
    torch.testing.assert_close(embeddings[:, timestamps[0].tolist().index(2000.0)], around)
    first = get_scene_embeddings(torch.nn.functional.pad(audio[:, :8000], (8000, 0)), model)
    torch.testing.assert_close(embeddings[:, 0], first)


@pytest.mark.parametrize("samples", [9000, 50000])
@pytest.mark.parametrize("reading", ["windows", "whole"])
def test_scenes_have_the_numbers_of_a_probe(tmp_path: Path, reading: str, samples: int) -> None:
    folder = write_checkpoint(tmp_path / "here", {"encoder": {"kind": "cnn", "width": 8, "reading": reading}})
    model, (trained, recipe) = load_model(folder), checkpoint.load(folder)
    sounds = noise(3, samples)
    embedder = by_model(trained, recipe.build_frontend())
    expected = embed(Rendered(sounds), range(3), embedder, recipe.window, recipe.samples)
    np.testing.assert_allclose(get_scene_embeddings(sounds, model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("audio", [torch.zeros(16000), torch.zeros(1, 16000, dtype=torch.int16)])
def test_what_is_no_batch_of_sound_is_refused(tmp_path: Path, audio: torch.Tensor) -> None:
    model = load_model(write_checkpoint(tmp_path / "here", KINDS["mel"]))
    for ask in (get_scene_embeddings, get_timestamp_embeddings):
        with pytest.raises(ValueError, match=r"expected floating-point \(n_sounds, n_samples\)"):
            ask(audio, model)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_hears_the_same(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "here", KINDS["mel"]))
    audio = noise(3, 50000)
    expected = get_scene_embeddings(audio, model)
    found = get_scene_embeddings(audio, model.to("cuda"))
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)


VALIDATOR = """
import sys, types
tensorflow = types.ModuleType("tensorflow")
tensorflow.Module = type("Module", (), {})  # the validator only asks whether a model is one
sys.modules["tensorflow"] = tensorflow
sys.modules["ray"] = None  # whoever evaluates a model need not have it
from hearvalidator.validate import main
main()
"""


@pytest.mark.skipif(
    importlib.util.find_spec("hearvalidator") is None,
    reason="needs `pip install --no-deps hearvalidator` (its dependencies bring TensorFlow, which is not needed)",
)
@pytest.mark.parametrize("kind", ["mel", "waveform"])
def test_the_official_validator_passes(tmp_path: Path, kind: str) -> None:
    folder = write_checkpoint(tmp_path / "here", KINDS[kind])
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", VALIDATOR, "doppel_ray.hear", "-m", folder, "-d", "cpu"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Looks good!\n")
