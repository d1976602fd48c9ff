"""A leaderboard from nothing but a run's folder."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from doppel_ray import report
from doppel_ray.report import leaderboard, study
from doppel_ray.search import label
from tests.report.conftest import make_run, row


def board(folder: Path) -> list[dict[str, str]]:
    """leaderboard.csv, read back."""
    table = leaderboard.settings_table(study.study([report.read(folder)]))
    with leaderboard.write_csv(folder / "leaderboard.csv", table).open(newline="") as file:
        return list(csv.DictReader(file))


def repeated(tmp_path: Path, scores: dict[int, float], **more: Any) -> study.Study:
    """Three seeds of δ = 0.1 and one of δ = 0.2."""
    trials = {f"00{s}": ({"pairs.delta": 0.1, "run.seed": s}, "finished", [row(1, v)]) for s, v in scores.items()}
    trials["009"] = (
        {"pairs.delta": 0.2, "run.seed": 0},
        "finished",
        [row(1, 0.55, **{"probe/factors/score_low": 0.5, "probe/factors/score_high": 0.6})],
    )
    return study.study([report.read(make_run(tmp_path / "repeated", trials))])


def test_trials_are_ranked_by_their_best_row(folder: Path) -> None:
    first, second, third = board(folder)
    assert [r["trial"] for r in (first, second, third)] == ["000_delta=0.02", "001_delta=0.25", "002_delta=0.5"]
    assert (first["best_epoch"], first["probe/factors/score"]) == ("2", "0.8")
    assert first["checkpoint"] == str(folder / "trials" / "000_delta=0.02" / "checkpoints" / "epoch_0002"), (
        "where it is"
    )
    assert (first["epochs"], first["pairs"], first["pairs.delta"]) == ("3", "960", "0.02")
    assert (first["probe/factors/score_mel"], first["probe/factors/score_untrained"]) == ("0.45", "0.5")
    assert second["status"] == "stopped early"
    assert (third["status"], third["probe/factors/score"]) == ("failed", "")


def test_the_score_that_nobody_picked_and_the_cost_stand_beside_the_best(folder: Path) -> None:
    first = board(folder)[0]
    assert (first["probe/factors/score_at_end"], first["train_seconds"]) == ("0.7", "60.0")
    assert float(first["probe/factors/score_gain"]) == pytest.approx(0.8 - 0.5)


def test_a_metric_that_should_be_small_is_ranked_the_other_way(folder: Path) -> None:
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["tune"] |= {"metric": "loss", "mode": "min"}
    (folder / "run.json").write_text(json.dumps(about))
    assert board(folder)[0]["best_epoch"] == "3"


@pytest.mark.parametrize("value", ["NaN", "null", '"high"', "Infinity", "true"])
def test_a_score_that_is_no_number_never_wins(folder: Path, value: str) -> None:
    file = folder / "trials" / "001_delta=0.25" / "rows.jsonl"
    file.write_text(file.read_text().replace("0.4,", f"{value},", 1))
    assert board(folder)[0]["trial"] == "000_delta=0.02"


def test_seeds_of_a_setting_are_one_row_with_students_interval(tmp_path: Path) -> None:
    scores = {0: 0.6, 1: 0.7, 2: 0.8}
    first, second = repeated(tmp_path, scores).settings
    found = first.score("probe/factors/score")
    assert found is not None
    assert (first.seeds, first.values, found.over) == (3, {"pairs.delta": 0.1}, "seeds")
    low, high = stats.t.interval(0.95, df=2, loc=0.7, scale=0.1 / math.sqrt(3))
    assert (found.mean, found.low, found.high) == pytest.approx((0.7, low, high))
    single = second.score("probe/factors/score")
    assert single == study.Score(0.55, 0.5, 0.6, "test examples")


def test_a_seed_that_was_run_twice_is_not_two_seeds(tmp_path: Path) -> None:
    trials = {f"00{n}": ({"run.seed": 0}, "finished", [row(1, 0.6)]) for n in range(2)}
    (setting,) = study.study([report.read(make_run(tmp_path / "twice", trials))]).settings
    assert (len(setting.trials), setting.seeds, setting.score("probe/factors/score")) == (2, 1, study.Score(0.6))


def test_repeats_show_their_mean_in_the_terminal_and_each_trial_in_trials_csv(tmp_path: Path) -> None:
    subject = repeated(tmp_path, {0: 0.6, 1: 0.7, 2: 0.8})
    console = Console(record=True, width=160, file=(tmp_path / "out.txt").open("w"))
    console.print(leaderboard.table(subject))
    assert "0.700 ± 0.248" in console.export_text()
    trials = leaderboard.trials_table(subject)
    assert [(t["rank"], t["run.seed"], t["probe/factors/score"]) for t in trials] == [
        (1, 0, 0.6),
        (1, 1, 0.7),
        (1, 2, 0.8),
        (2, 0, 0.55),
    ]


def test_two_trials_of_a_population_with_the_same_values_are_not_repeats(tmp_path: Path) -> None:
    trials = {f"00{n}": ({"optim.lr": 0.1}, "finished", [row(1, 0.6, **{"search/optim.lr": 0.2})]) for n in range(2)}
    folder = make_run(tmp_path / "population", trials)
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["tune"]["scheduler"] = "pbt"
    (folder / "run.json").write_text(json.dumps(about))
    settings = study.study([report.read(folder)]).settings
    assert [setting.values for setting in settings] == [{"optim.lr": 0.2}] * 2, "the values in force at the best row"


def test_several_runs_share_one_leaderboard(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", {"000": ({"pairs.delta": 0.1}, "finished", [row(1, 0.6)])})
    two = make_run(tmp_path / "two", {"000": ({"encoder.kind": "cnn"}, "finished", [row(1, 0.7)])})
    subject = study.study([report.read(one), report.read(two)])
    assert subject.keys == ("run", "pairs.delta", "encoder.kind")
    assert [list(setting.values.values()) for setting in subject.settings] == [
        ["two", 0.25, "cnn"],
        ["one", 0.1, "resnet18"],
    ], "what a run did not search has the value of its experiment"


def test_values_that_look_alike_keep_names_of_their_own(tmp_path: Path) -> None:
    soft, loud = [{"kind": "gain", "low": -6}], [{"kind": "gain", "low": -12}]
    trials = {f"00{n}": ({"augment": chain}, "finished", [row(1, 0.6)]) for n, chain in enumerate((soft, loud, []))}
    subject = study.study([report.read(make_run(tmp_path / "alike", trials))])
    assert len(set(subject.labels["augment"].values())) == 3


def test_searched_values_have_short_names() -> None:
    chain = [{"kind": "fade", "p": 1.0}, {"kind": "time_mask"}]
    found = [label(value) for value in (0.05, 3, "cnn", chain, [], {"synthetic": 0.7, "recordings": 0.3})]
    assert found == ["0.05", "3", "cnn", "fade+time_mask", "none", "recordings 0.3, synthetic 0.7"]
