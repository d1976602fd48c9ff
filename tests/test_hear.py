"""The HEAR API: what HEAR's validator checks, for sounds of any length, in agreement with the probes."""

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

from doppel_ray.config.experiment import Experiment
from doppel_ray.data.audio_files import Decoded
from doppel_ray.data.windows import centred, cut
from doppel_ray.hear import get_scene_embeddings, get_timestamp_embeddings, load_model
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.models.clips import Reading
from doppel_ray.probe.embed import by_model, embed_sounds
from doppel_ray.probe.sounds import Recorded
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
    checkpoint.save(folder, ModelSpec.of(plain, classes).untrained(), plain, Position(), {}, {}, classes)
    return folder


def noise(*shape: int) -> torch.Tensor:
    return torch.empty(shape).uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@given(samples=st.integers(0, 300), size=st.integers(1, 100))
def test_windows_cover_the_sound(samples: int, size: int) -> None:
    sound = torch.arange(1.0, samples + 1)
    cover = torch.cat(list(Reading(size, size, 7 * size).cut(Decoded(sound, step=1))))
    assert cover.shape[1] == size
    assert set(sound.tolist()) == set(cover.flatten().tolist()) - {0.0}
    assert (0.0 in cover) == (samples < size), "only what is shorter than a window is filled up"
    assert len(cover) == max(1, -(-samples // size)), "no more windows than needed"


@given(samples=st.integers(0, 300), size=st.integers(1, 100), hop=st.floats(0.5, 50.0), data=st.data())
def test_centred_windows(samples: int, size: int, hop: float, data: st.DataObject) -> None:
    sound, centre = torch.arange(1.0, samples + 1), data.draw(st.integers(0, size - 1))
    starts = centred(samples, centre, hop)
    for k, window in enumerate(cut(sound, starts, size)):
        middle = round(k * hop)
        assert window[centre] == (middle + 1 if middle < samples else 0)
    assert (len(starts) - 1) * hop <= samples < len(starts) * hop + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_sounds_of_every_length(tmp_path: Path, kind: str) -> None:
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


def test_timestamp_embedding_is_that_of_its_window(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "here", KINDS["mel"]))
    audio = noise(1, 80000)
    embeddings, timestamps = get_timestamp_embeddings(audio, model, hop=250.0)
    assert len(timestamps[0]) == 21
    centre = model.centre
    around = get_scene_embeddings(audio[:, 32000 - centre : 32000 - centre + 16000], model)
    torch.testing.assert_close(embeddings[:, timestamps[0].tolist().index(2000.0)], around)
    first = get_scene_embeddings(torch.nn.functional.pad(audio[:, : 16000 - centre], (centre, 0)), model)
    torch.testing.assert_close(embeddings[:, 0], first)


@pytest.mark.parametrize(("kind", "duration"), [("mel", 1.0), ("mel", 0.3), ("clar", 0.3), ("waveform", 0.3)])
def test_embeddings_are_centred_on_timestamps(tmp_path: Path, kind: str, duration: float) -> None:
    """An impulse changes the embeddings of the timestamps around it, as many milliseconds before it as after it."""
    model = load_model(write_checkpoint(tmp_path / "here", {**KINDS[kind], "synth": {"duration": duration}}))
    middle = round(duration * 16000)
    impulse = torch.zeros(1, 2 * middle)
    impulse[0, middle] = 1.0
    found, timestamps = get_timestamp_embeddings(impulse, model, hop=5.0)
    without = get_scene_embeddings(torch.zeros(1, middle), model)
    changed = timestamps[0][(found[0] - without).abs().amax(dim=1) > 1e-4 * without.abs().max()]
    assert changed.min() > 0.0
    assert changed.max() < timestamps.max()
    assert (changed.min() + changed.max()) / 2 == pytest.approx(1000 * duration, abs=5.0)


LENGTHS = (1, 9000, 16000, 16001, 37000, 9000)


def check_against_probe(folder: Path, lengths: tuple[int, ...]) -> None:
    model = load_model(folder)
    sounds = Recorded([], model.sample_rate)
    clips = [noise(1, samples)[0] for samples in lengths]
    sounds.read = clips.__getitem__  # type: ignore[method-assign]
    expected = embed_sounds(sounds, range(len(clips)), by_model(load_model(folder)))
    for clip, vector in zip(clips, expected, strict=True):
        (found,) = get_scene_embeddings(clip.unsqueeze(0), model)
        np.testing.assert_allclose(found, vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", ["windows", "whole"])
def test_scenes_agree_with_probes(tmp_path: Path, reading: str, kind: str) -> None:
    """A probe's batches hold clips of several lengths; the scene of each clip is asked for alone."""
    settings = KINDS[kind] | {"encoder": {**KINDS[kind]["encoder"], "reading": reading}}
    check_against_probe(write_checkpoint(tmp_path / "here", settings), LENGTHS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [16000, 24000, 30400, 50000])
def test_whole_clip_is_read_to_its_end(tmp_path: Path, kind: str, samples: int) -> None:
    """A click in any tenth of a clip, the last included, changes its embedding."""
    settings = KINDS[kind] | {"encoder": {**KINDS[kind]["encoder"], "reading": "whole"}}
    model = load_model(write_checkpoint(tmp_path / "here", settings))
    clips = torch.zeros(11, samples)
    for tenth in range(10):
        clips[tenth, round((tenth + 0.9) / 10 * samples)] = 1.0
    scenes = get_scene_embeddings(clips, model)
    changed = (scenes[:10] - scenes[10]).abs().amax(dim=1) / scenes[10].abs().amax()
    assert (changed > 1e-4).all(), changed


def test_whole_reading_takes_a_minute_at_a_time(tmp_path: Path) -> None:
    settings = {"encoder": {"kind": "cnn", "width": 8, "reading": "whole"}, "synth": {"sample_rate": 16000}}
    folder = write_checkpoint(tmp_path / "here", settings)
    check_against_probe(folder, (65 * 16000,))
    model, clip = load_model(folder), noise(1, 65 * 16000)
    parts = torch.cat([clip[:, : 60 * 16000], clip[:, 5 * 16000 :]])
    expected = get_scene_embeddings(parts, model).mean(dim=0)
    torch.testing.assert_close(get_scene_embeddings(clip, model)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reading", ["windows", "whole"])
def test_audio_dtypes(tmp_path: Path, reading: str, dtype: torch.dtype) -> None:
    settings = {"encoder": {**KINDS["mel"]["encoder"], "reading": reading}}
    model = load_model(write_checkpoint(tmp_path / "here", settings))
    audio = noise(2, 20000).to(dtype)
    assert torch.equal(get_scene_embeddings(audio, model), get_scene_embeddings(audio.float(), model))
    found, _ = get_timestamp_embeddings(audio, model, hop=400.0)
    assert torch.equal(found, get_timestamp_embeddings(audio.float(), model, hop=400.0)[0])
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("audio", "dtype"),
    [
        (torch.zeros(16000), "float32"),
        (torch.zeros(1, 16000, dtype=torch.int16), "int16"),
        (torch.zeros(1, 16000, dtype=torch.complex64), "complex64"),
    ],
)
def test_bad_audio_is_refused(tmp_path: Path, audio: torch.Tensor, dtype: str) -> None:
    model = load_model(write_checkpoint(tmp_path / "here", KINDS["mel"]))
    for ask in (get_scene_embeddings, get_timestamp_embeddings):
        with pytest.raises(
            ValueError, match=rf"audio is torch\.{dtype}.*expected floating-point \(n_sounds, n_samples\)"
        ):
            ask(audio, model)


def test_empty_batch(tmp_path: Path) -> None:
    model = load_model(write_checkpoint(tmp_path / "here", KINDS["mel"]))
    assert get_scene_embeddings(torch.zeros(0, 16000), model).shape == (0, model.scene_embedding_size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu(tmp_path: Path) -> None:
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
def test_official_validator(tmp_path: Path, kind: str) -> None:
    folder = write_checkpoint(tmp_path / "here", KINDS[kind])
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", VALIDATOR, "doppel_ray.hear", "-m", folder, "-d", "cpu"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Looks good!\n")
