"""A checkpoint's scores, and those of two baselines on the same splits."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import doppel_ray
from doppel_ray.config.experiment import Experiment
from doppel_ray.config.probes import ProbesConfig
from doppel_ray.core.errors import ConfigError
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.probe import __main__ as probe
from doppel_ray.probe import baselines
from doppel_ray.probe.evaluate import BASELINES, TaskEmbedder, _file, evaluate_checkpoint, score_task
from doppel_ray.probe.protocols import ProtocolConfig
from doppel_ray.probe.task import Split, TaskSpec
from doppel_ray.probe.tasks import Factors, Native

SMALL = {"kind": "cnn", "width": 8}


def checkpoint_of(folder: Path, settings: dict[str, Any]) -> Path:
    """A checkpoint taken before the first step."""
    folder.mkdir()
    plain = Experiment.model_validate(settings).plain()
    checkpoint.save(folder, ModelSpec.of(plain).untrained(), plain, Position(), {}, {})
    return folder


def untrained_checkpoint(folder: Path, **encoder: object) -> Path:
    return checkpoint_of(folder, {"encoder": SMALL | encoder})


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    return untrained_checkpoint(tmp_path / "epoch_0000")


def evaluate(folder: Path, probes: ProbesConfig, kept: Path | None = None) -> dict[str, float]:
    embedder = TaskEmbedder(folder, probes.cache)
    return evaluate_checkpoint(folder, probes.build(), probes.protocol, embedder, kept)


def factors(sounds: int) -> Factors:
    return Factors(sounds=sounds)


def test_scores_of_each_task_and_two_baselines(untrained: Path, esc50_folder: Path) -> None:
    probes = ProbesConfig.model_validate({"tasks": [factors(128), "esc50"], "root": esc50_folder, "cache": 0})
    scores = evaluate(untrained, probes)
    for metric in ("probe/factors/score", "probe/esc50/accuracy"):
        assert {metric, f"{metric}_low", f"{metric}_high", f"{metric}_mel", f"{metric}_untrained"} <= scores.keys()
        assert scores[f"{metric}_low"] <= scores[metric] <= scores[f"{metric}_high"]
    assert {"probe/factors/pitch", "probe/factors/attack", "probe/esc50/fold_1", "probe/esc50/fold_2"} <= scores.keys()
    assert scores["probe/esc50/accuracy_mel"] == 1.0  # one pitch for each class: any band tells them apart


@pytest.mark.slow
def test_baselines_are_kept_between_checkpoints(untrained: Path, tmp_path: Path) -> None:
    probes = ProbesConfig(tasks=(factors(128),))
    first = evaluate(untrained, probes, tmp_path / "baselines")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "baselines").iterdir()}
    assert len(kept) == 2
    assert evaluate(untrained, probes, tmp_path / "baselines") == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "baselines").iterdir()} == kept
    evaluate(untrained, ProbesConfig(tasks=(factors(129),)), tmp_path / "baselines")
    other = ProbesConfig.model_validate({"tasks": [factors(128)], "protocol": "knn"})
    assert evaluate(untrained, other, tmp_path / "baselines")["probe/factors/score"] != first["probe/factors/score"]
    assert len(list((tmp_path / "baselines").iterdir())) == 6


def test_json_is_checked_before_any_work(untrained: Path, tmp_path: Path) -> None:
    """A missing folder is made; a path that cannot be written is refused at once."""
    arguments = ["--checkpoint", str(untrained), "--probes.tasks", "[{kind: factors, sounds: 128}]", "--json"]
    assert probe.main([*arguments, str(tmp_path / "new" / "deep" / "scores.json")]) == 0
    assert "probe/factors/score" in json.loads((tmp_path / "new" / "deep" / "scores.json").read_text())
    assert [file.name for file in (tmp_path / "new" / "deep").iterdir()] == ["scores.json"]
    (tmp_path / "file").write_text("mine")
    for path, message in (("file/scores.json", "cannot be written"), ("new", "is a folder")):
        with pytest.raises(ConfigError, match=message):
            probe.main([*arguments, str(tmp_path / path)])


def kept_as(folder: Path, esc50: Path) -> tuple[Path | None, Path | None]:
    """Where the mel and the untrained baseline of ESC-50 are kept."""
    task = Native(kind="esc50", root=esc50)
    mel, untrained = (_file(task, ProtocolConfig(), folder, Path("kept"), which) for which in BASELINES)
    return mel, untrained


def differ(one: tuple[Path | None, Path | None], other: tuple[Path | None, Path | None]) -> tuple[bool, bool]:
    return one[0] != other[0], one[1] != other[1]


def test_kept_baseline_depends_on_recordings_and_labels(untrained: Path, esc50_folder: Path) -> None:
    before = kept_as(untrained, esc50_folder)
    assert kept_as(untrained, esc50_folder) == before
    sound = next((esc50_folder / "audio").iterdir())
    found = sound.stat()
    os.utime(sound, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    changed = kept_as(untrained, esc50_folder)
    assert differ(changed, before) == (True, True)
    table = esc50_folder / "meta" / "esc50.csv"
    header, first, *rest = table.read_text().splitlines()
    name, fold, *more = first.split(",")
    table.write_text("\n".join([header, ",".join([name, "2" if fold == "1" else "1", *more]), *rest]) + "\n")
    assert differ(kept_as(untrained, esc50_folder), changed) == (True, True)


def test_kept_baseline_depends_on_code(
    untrained: Path, esc50_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept_as(untrained, esc50_folder)
    copy = tmp_path / "doppel_ray"
    shutil.copytree(Path(doppel_ray.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(doppel_ray, "__file__", str(copy / "__init__.py"))
    try:
        baselines._code.cache_clear()
        assert kept_as(untrained, esc50_folder) == before
        with (copy / "probe" / "embed.py").open("a") as file:
            file.write("# changed\n")
        baselines._code.cache_clear()
        assert differ(kept_as(untrained, esc50_folder), before) == (True, True)
    finally:
        baselines._code.cache_clear()


def test_kept_untrained_baseline_depends_on_pairs_but_not_delta(tmp_path: Path, esc50_folder: Path) -> None:
    def of(name: str, **pairs: object) -> tuple[Path | None, Path | None]:
        return kept_as(checkpoint_of(tmp_path / name, {"encoder": SMALL, "pairs": pairs}), esc50_folder)

    quarter = of("quarter", delta=0.25)
    assert of("tenth", delta=0.1) == quarter
    assert differ(of("layered", layers=2), quarter) == (False, True)


@pytest.mark.slow
def test_untrained_encoder_has_initial_weights_and_statistics_of_its_pairs(untrained: Path) -> None:
    model, start = baselines.untrained(untrained), checkpoint.recipe(untrained).untrained()
    assert not model.training
    for (name, value), initial in zip(model.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(value, initial), name
    features = PairMaker.of(checkpoint.about(untrained)["experiment"])(torch.arange(256)).flatten(0, 1).float()
    seen: list[torch.Tensor] = []
    layers = model.encoder.layers
    assert isinstance(layers, torch.nn.Sequential)
    layers[0][1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model.represent(features)
    (normalised,) = seen
    torch.testing.assert_close(normalised.mean(dim=(0, 2, 3)), torch.zeros(8), atol=0.2, rtol=0.0)
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3)), torch.ones(8), atol=0.2, rtol=0.0)


def test_untrained_baseline_without_recordings_of_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = {"mix": {"recordings": 1.0}, "recordings": {"root": str(tmp_path / "gone")}}
    scores = evaluate(
        checkpoint_of(tmp_path / "here", {"encoder": SMALL, "source": source}), ProbesConfig(tasks=(factors(128),))
    )
    assert "probe/factors/score_mel" in scores
    assert "probe/factors/score_untrained" not in scores
    assert "left out the untrained baseline" in caplog.text


@pytest.mark.slow
def test_waveform_encoder_below_15_khz(tmp_path: Path) -> None:
    settings = {
        "encoder": {"kind": "resnet18_1d", "width": 8},
        "frontend": {"kind": "raw"},
        "synth": {"sample_rate": 8000, "duration": 0.2},
    }
    scores = evaluate(checkpoint_of(tmp_path / "here", settings), ProbesConfig(tasks=(factors(128),)))
    assert {"probe/factors/score", "probe/factors/score_mel", "probe/factors/score_untrained"} <= scores.keys()
    assert np.isfinite([*scores.values()]).all()


@pytest.mark.slow
def test_protocol_of_a_task(untrained: Path) -> None:
    tasks = [factors(128), {"kind": "factors", "sounds": 128, "name": "near", "protocol": "knn"}]
    scores = evaluate(untrained, ProbesConfig.model_validate({"tasks": tasks}))
    assert scores["probe/near/score"] != scores["probe/factors/score"]


def test_reading_whole_differs_from_windows(tmp_path: Path, esc10: Path) -> None:
    """The weights are the same; the maximum over time spans the windows' borders."""
    task = Native(kind="esc10", root=esc10)
    vectors = [
        TaskEmbedder(untrained_checkpoint(tmp_path / reading, reading=reading))(task, "trained", range(3))[0]
        for reading in ("windows", "whole")
    ]
    assert vectors[0].shape == vectors[1].shape == (3, 128)
    assert not np.allclose(*vectors, rtol=0.01)


def test_unreadable_sound_is_refused_or_skipped() -> None:
    rng = np.random.default_rng(0)
    targets, everything = np.arange(40) % 2, np.arange(40)
    vectors = (rng.normal(size=(40, 4)) + 4.0 * targets[:, None]).astype(np.float32)
    fold = everything // 2 % 2
    splits = tuple(Split(f"fold_{k}", everything[fold != k], everything[:0], everything[fold == k]) for k in (0, 1))
    spec = TaskSpec("multiclass", targets, ("a", "b"), splits, ("accuracy",))
    vectors[7] = np.nan
    broken = {7: "dog.wav: cut short"}
    with pytest.raises(ConfigError, match=r"esc10: 1 of 40 files cannot be read, first dog\.wav: cut short; mend"):
        score_task(Native(kind="esc10", unreadable="refuse"), ProtocolConfig(), spec, (vectors, broken))
    found = score_task(Native(kind="esc10", unreadable="skip"), ProtocolConfig(), spec, (vectors, broken))
    assert found["accuracy"] == 1.0


def test_factors_from_mel_statistics(untrained: Path) -> None:
    """Statistics over time know how much there was of each band, and nothing of when."""
    task = factors(512)
    scores = score_task(task, ProtocolConfig(), task.load(16000).spec, TaskEmbedder(untrained)(task, "mel"))
    for name in ("score", "pitch", "note_duration", "sustain", "noise_level"):
        assert scores[name] > 0.05, name
    assert min(scores.values()) > -0.05, "what cannot be told should be guessed to be its mean"


@pytest.mark.slow
def test_mel_statistics_on_real_esc10(untrained: Path, esc10: Path) -> None:
    """79.8 % in five folds, as measured before there was any code here; 30 s, most of it reading 400 files."""
    task = Native(kind="esc10", root=esc10)
    scores = score_task(task, ProtocolConfig(), task.load(16000).spec, TaskEmbedder(untrained)(task, "mel"))
    assert scores["accuracy"] == pytest.approx(0.798, abs=0.02)
    assert len([name for name in scores if name.startswith("fold_")]) == 5
