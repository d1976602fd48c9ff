"""A checkpoint's scores stand beside two baselines on the same splits."""

from pathlib import Path

import numpy as np
import pytest

from doppel_ray import checkpoint
from doppel_ray.checkpoint import Position, Recipe
from doppel_ray.config import Experiment
from doppel_ray.probe import ProbesConfig
from doppel_ray.probe.evaluate import Encoder, evaluate, score
from doppel_ray.probe.protocols import ProtocolConfig
from doppel_ray.probe.task import Questions, Split
from doppel_ray.probe.tasks import Factors, Native
from doppel_ray.section import ConfigError


def untrained_checkpoint(folder: Path, **encoder: object) -> Path:
    """A checkpoint taken before the first step."""
    folder.mkdir()
    plain = Experiment.model_validate({"encoder": {"kind": "cnn", "width": 8, **encoder}}).plain()
    checkpoint.save(folder, Recipe.of(plain).untrained(), plain, Position(), {}, {})
    return folder


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    return untrained_checkpoint(tmp_path / "epoch_0000")


def factors(sounds: int) -> Factors:
    return Factors(sounds=sounds)


def test_each_task_gives_its_metrics_and_two_baselines(untrained: Path, esc50_folder: Path) -> None:
    probes = ProbesConfig.model_validate({"tasks": [factors(128), "esc50"], "root": esc50_folder, "cache": 0})
    scores = evaluate(untrained, probes)
    for metric in ("probe/factors/score", "probe/esc50/accuracy"):
        assert {metric, f"{metric}_low", f"{metric}_high", f"{metric}_mel", f"{metric}_untrained"} <= scores.keys()
        assert scores[metric] == scores[f"{metric}_untrained"], "this checkpoint is the untrained encoder"
        assert scores[f"{metric}_low"] <= scores[metric] <= scores[f"{metric}_high"]
    assert {"probe/factors/pitch", "probe/factors/attack", "probe/esc50/fold_1", "probe/esc50/fold_2"} <= scores.keys()
    assert scores["probe/esc50/accuracy_mel"] == 1.0  # one pitch for each class: any band tells them apart


def test_baselines_are_computed_once_for_all_checkpoints_of_a_model(untrained: Path, tmp_path: Path) -> None:
    probes = ProbesConfig(tasks=(factors(128),))
    first = evaluate(untrained, probes, tmp_path / "baselines")
    (kept,) = (tmp_path / "baselines").iterdir()
    before = kept.stat().st_mtime_ns
    assert evaluate(untrained, probes, tmp_path / "baselines") == first
    assert kept.stat().st_mtime_ns == before
    evaluate(untrained, ProbesConfig(tasks=(factors(129),)), tmp_path / "baselines")
    other = ProbesConfig.model_validate({"tasks": [factors(128)], "protocol": "knn"})
    assert evaluate(untrained, other, tmp_path / "baselines")["probe/factors/score"] != first["probe/factors/score"]
    assert len(list((tmp_path / "baselines").iterdir())) == 3


def test_a_task_may_have_a_protocol_of_its_own(untrained: Path) -> None:
    tasks = [factors(128), {"kind": "factors", "sounds": 128, "name": "near", "protocol": "knn"}]
    scores = evaluate(untrained, ProbesConfig.model_validate({"tasks": tasks}))
    assert scores["probe/near/score"] != scores["probe/factors/score"]


def test_a_recording_read_whole_is_not_the_mean_of_its_windows(tmp_path: Path, esc10: Path) -> None:
    """The weights are the same; the maximum over time spans the windows' borders."""
    task = Native(kind="esc10", root=esc10)
    vectors = [
        Encoder(untrained_checkpoint(tmp_path / reading, reading=reading))(task, "trained", range(3))[0]
        for reading in ("windows", "whole")
    ]
    assert vectors[0].shape == vectors[1].shape == (3, 128)
    assert not np.allclose(*vectors, rtol=0.01)


def test_a_sound_that_cannot_be_read_is_refused_by_name_or_left_out_of_every_split() -> None:
    rng = np.random.default_rng(0)
    targets, everything = np.arange(40) % 2, np.arange(40)
    vectors = (rng.normal(size=(40, 4)) + 4.0 * targets[:, None]).astype(np.float32)
    fold = everything // 2 % 2
    splits = tuple(Split(f"fold_{k}", everything[fold != k], everything[:0], everything[fold == k]) for k in (0, 1))
    questions = Questions("multiclass", targets, ("a", "b"), splits, ("accuracy",))
    vectors[7] = np.nan
    broken = {7: "dog.wav: cut short"}
    with pytest.raises(ConfigError, match=r"esc10: 1 of 40 files cannot be read, first dog\.wav: cut short; mend"):
        score(Native(kind="esc10", unreadable="refuse"), ProtocolConfig(), questions, (vectors, broken))
    found = score(Native(kind="esc10", unreadable="skip"), ProtocolConfig(), questions, (vectors, broken))
    assert found["accuracy"] == 1.0


def test_factors_can_be_heard_in_mel_statistics_as_far_as_these_can_tell(untrained: Path) -> None:
    """Statistics over time know how much there was of each band, and nothing of when."""
    task = factors(512)
    scores = score(task, ProtocolConfig(), task.load(16000).questions, Encoder(untrained)(task, "mel"))
    for name in ("score", "pitch", "note_duration", "sustain", "noise_level"):
        assert scores[name] > 0.05, name
    assert min(scores.values()) > -0.05, "what cannot be told should be guessed to be its mean"


@pytest.mark.slow
def test_mel_statistics_reach_the_measured_figure_on_the_real_esc10(untrained: Path, esc10: Path) -> None:
    """79.8 % in five folds, as measured before there was any code here; 30 s, most of it reading 400 files."""
    task = Native(kind="esc10", root=esc10)
    scores = score(task, ProtocolConfig(), task.load(16000).questions, Encoder(untrained)(task, "mel"))
    assert scores["accuracy"] == pytest.approx(0.798, abs=0.02)
    assert len([name for name in scores if name.startswith("fold_")]) == 5
