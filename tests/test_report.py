"""A leaderboard and pictures from nothing but a run's folder."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from doppel_ray import report
from doppel_ray.config import Experiment
from doppel_ray.search import label
from doppel_ray.section import ConfigError

BASELINES = {"probe/factors/score_mel": 0.45, "probe/factors/score_untrained": 0.5}


def row(epoch: int, score: float | None, **more: Any) -> dict[str, Any]:
    scores = {} if score is None else {"probe/factors/score": score, **BASELINES}
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "pairs": 320 * epoch,
        "loss": 3.0 - epoch / 10,
        "checkpoint": f"epoch_{epoch:04d}",
        **scores,
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of three trials: one best in the middle of its run, one stopped early, one without a score."""
    trials = {
        "000_delta=0.02": (0.02, "finished", [row(1, 0.3), row(2, 0.8), row(3, 0.7)]),
        "001_delta=0.25": (0.25, "stopped early", [row(1, 0.4)]),
        "002_delta=0.5": (0.5, "failed", []),
    }
    about = {"experiment": Experiment().plain()}
    (tmp_path / "run.json").write_text(json.dumps(about))
    entries = [
        {"name": name, "values": {"pairs.delta": delta}, "status": status}
        for name, (delta, status, _) in trials.items()
    ]
    (tmp_path / "trials.json").write_text(json.dumps(entries))
    for name, (_, _, rows) in trials.items():
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def leaderboard(folder: Path) -> list[dict[str, str]]:
    with report.write_leaderboard(report.read(folder)).open(newline="") as file:
        return list(csv.DictReader(file))


def test_trials_are_ranked_by_their_best_row(folder: Path) -> None:
    first, second, third = leaderboard(folder)
    assert [r["trial"] for r in (first, second, third)] == ["000_delta=0.02", "001_delta=0.25", "002_delta=0.5"]
    assert (first["best_epoch"], first["probe/factors/score"], first["checkpoint"]) == ("2", "0.8", "epoch_0002")
    assert (first["epochs"], first["pairs"], first["pairs.delta"]) == ("3", "960", "0.02")
    assert (first["probe/factors/score_mel"], first["probe/factors/score_untrained"]) == ("0.45", "0.5")
    assert second["status"] == "stopped early"
    assert (third["status"], third["probe/factors/score"]) == ("failed", "")


def test_a_metric_that_should_be_small_is_ranked_the_other_way(folder: Path) -> None:
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["tune"] |= {"metric": "loss", "mode": "min"}
    (folder / "run.json").write_text(json.dumps(about))
    assert leaderboard(folder)[0]["best_epoch"] == "3"


def test_a_damaged_line_is_left_out_and_the_rest_counts(folder: Path) -> None:
    file = folder / "trials" / "000_delta=0.02" / "rows.jsonl"
    file.write_text(file.read_text() + '{"epoch": 4, "probe/fac')
    assert leaderboard(folder)[0]["epochs"] == "3"


@pytest.mark.parametrize("value", ["NaN", "null", '"high"', "Infinity"])
def test_a_score_that_is_no_number_never_wins(folder: Path, value: str) -> None:
    file = folder / "trials" / "001_delta=0.25" / "rows.jsonl"
    file.write_text(file.read_text().replace("0.4,", f"{value},", 1))
    assert leaderboard(folder)[0]["trial"] == "000_delta=0.02"


def test_a_trial_that_has_not_begun_is_shown_without_a_score(folder: Path) -> None:
    (folder / "trials" / "001_delta=0.25" / "rows.jsonl").unlink()
    assert [r["status"] for r in leaderboard(folder)].count("stopped early") == 1


def test_a_run_that_has_only_just_begun_has_an_empty_leaderboard(folder: Path) -> None:
    (folder / "trials.json").unlink()
    assert leaderboard(folder) == []


@pytest.mark.parametrize("name", ["run.json", "trials.json"])
@pytest.mark.parametrize("text", ["", '{"experiment": {', "[1"])
def test_a_damaged_file_is_refused_by_name(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        report.read(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run: run\.json is missing"):
        report.read(tmp_path)


def test_publishing_prints_the_leaderboard_names_the_best_checkpoint_and_draws_the_scores(folder: Path) -> None:
    console = Console(record=True, width=160, quiet=False, file=(folder / "out.txt").open("w"))
    report.publish(folder, console)
    text = console.export_text()
    for part in (
        "mel statistics",
        "same encoder, untrained",
        "stopped early",
        "best: 000_delta=0.02, epoch 2",
        "epoch_0002",
        "tensorboard --logdir",
    ):
        assert part in text
    assert (folder / "leaderboard.csv").is_file()
    assert (folder / "score_against_delta.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_over_words_has_no_picture_and_no_trouble(folder: Path) -> None:
    entries = json.loads((folder / "trials.json").read_text())
    for entry in entries:
        entry["values"] = {"encoder.kind": "cnn"}
    (folder / "trials.json").write_text(json.dumps(entries))
    assert report.plot_scores(report.read(folder)) == []


def test_searched_values_have_short_names() -> None:
    chain = [{"kind": "fade", "p": 1.0}, {"kind": "time_mask"}]
    found = [label(value) for value in (0.05, 3, "cnn", chain, [], {"synthetic": 0.7, "recordings": 0.3})]
    assert found == ["0.05", "3", "cnn", "fade+time_mask", "none", "recordings 0.3, synthetic 0.7"]
