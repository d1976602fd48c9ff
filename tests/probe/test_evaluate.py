"""A checkpoint's scores stand beside two baselines on the same split."""

from pathlib import Path

import pytest
import torch

from doppel_ray import checkpoint
from doppel_ray.checkpoint import Position, Recipe
from doppel_ray.config import Experiment
from doppel_ray.probe import ProbesConfig
from doppel_ray.probe.embed import by_mel_statistics, embed
from doppel_ray.probe.evaluate import evaluate, score
from doppel_ray.probe.tasks import Esc50, Examples, Factors

SMALL = Experiment.model_validate({"encoder": {"kind": "cnn", "width": 8}})


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A checkpoint taken before the first step."""
    folder = tmp_path / "epoch_0000"
    folder.mkdir()
    plain = SMALL.plain()
    checkpoint.save(folder, Recipe.of(plain).untrained(), plain, Position(), {}, {})
    return folder


def test_each_task_gives_its_metrics_and_two_baselines(untrained: Path, esc50_folder: Path) -> None:
    probes = ProbesConfig(tasks=("factors", "esc50"), root=esc50_folder, factor_sounds=64)
    scores = evaluate(untrained, probes)
    for metric in ("probe/factors/score", "probe/esc50/accuracy"):
        assert {metric, f"{metric}_mel", f"{metric}_untrained"} <= scores.keys()
        assert scores[metric] == scores[f"{metric}_untrained"], "this checkpoint is the untrained encoder"
    assert {"probe/factors/pitch", "probe/factors/attack", "probe/esc50/fold_1", "probe/esc50/fold_2"} <= scores.keys()
    assert scores["probe/esc50/accuracy_mel"] == 1.0  # one pitch for each class: any band tells them apart


def test_baselines_are_computed_once_for_all_checkpoints_of_a_model(untrained: Path, tmp_path: Path) -> None:
    probes = ProbesConfig(factor_sounds=64)
    first = evaluate(untrained, probes, tmp_path / "baselines")
    (kept,) = (tmp_path / "baselines").iterdir()
    before = kept.stat().st_mtime_ns
    assert evaluate(untrained, probes, tmp_path / "baselines") == first
    assert kept.stat().st_mtime_ns == before
    evaluate(untrained, ProbesConfig(factor_sounds=65), tmp_path / "baselines")
    assert len(list((tmp_path / "baselines").iterdir())) == 2


def test_factors_can_be_heard_in_mel_statistics_as_far_as_these_can_tell() -> None:
    """Statistics over time know how much there was of each band, and nothing of when."""
    recipe = Recipe.of(SMALL.plain())
    scores = score(Factors(count=512), recipe, by_mel_statistics(recipe.build_frontend()), None)
    for name in ("score", "pitch", "note_duration", "sustain", "noise_level"):
        assert scores[name] > 0.05, name
    assert min(scores.values()) > -0.05, "what cannot be told should be guessed to be its mean"


def test_a_long_sound_is_the_mean_of_its_windows_and_a_short_one_is_filled_up_with_silence() -> None:
    sounds = torch.arange(20.0).repeat(2, 1)
    sounds[1, 4:] = 0.0
    examples = Examples(sounds, torch.tensor([20, 4]).numpy(), {}, torch.zeros(2).numpy())
    vectors = embed(examples, lambda windows: windows[:, :1] + windows[:, -1:], window=8)
    # Windows at 0, 8 and (to end with the sound) 12: first and last samples 0 + 7, 8 + 15, 12 + 19.
    assert vectors[:, 0].tolist() == [pytest.approx((7 + 23 + 31) / 3), 0.0]


@pytest.mark.slow
def test_mel_statistics_reach_the_measured_figure_on_the_real_esc10(esc10: Path) -> None:
    """79.8 % in five folds, as measured before there was any code here; 30 s, most of it reading 400 files."""
    recipe = Recipe.of(SMALL.plain())
    scores = score(Esc50(esc10, "esc10"), recipe, by_mel_statistics(recipe.build_frontend()), None)
    assert scores["accuracy"] == pytest.approx(0.798, abs=0.02)
    assert len([name for name in scores if name.startswith("fold_")]) == 5
