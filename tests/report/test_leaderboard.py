"""The leaderboard, from a run's folder."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from doppel_ray.config.search import label
from doppel_ray.report import leaderboard, study, writer
from doppel_ray.runs import reader
from tests.made_runs import make_run, row

VALID_SCORE = "probe/factors/score_valid"


def board(folder: Path) -> list[dict[str, str]]:
    """Write leaderboard.csv and read it back."""
    table = leaderboard.settings_table(study.study([reader.read(folder)]))
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
    return study.study([reader.read(make_run(tmp_path / "repeated", trials))])


def test_rank_by_best_row(folder: Path) -> None:
    first, second, third = board(folder)
    assert [r["trial"] for r in (first, second, third)] == ["000_delta=0.02", "001_delta=0.25", "002_delta=0.5"]
    assert (first["best_epoch"], first["probe/factors/score"]) == ("2", "0.8")
    assert first["checkpoint"] == str(folder / "trials" / "000_delta=0.02" / "checkpoints" / "epoch_0002"), (
        "where the run lies now"
    )
    assert (first["epochs"], first["pairs"], first["pairs.delta"]) == ("3", "960", "0.02")
    assert (first["probe/factors/score_mel"], first["probe/factors/score_untrained"]) == ("0.45", "0.5")
    assert second["status"] == "stopped early"
    assert (third["status"], third["probe/factors/score"]) == ("failed", "")


def test_final_score_cost_and_gain(folder: Path) -> None:
    first = board(folder)[0]
    assert (first["probe/factors/score_at_end"], first["train_seconds"]) == ("0.7", "60.0")
    assert float(first["probe/factors/score_gain"]) == pytest.approx(0.8 - 0.5)


def test_rank_by_minimum(folder: Path) -> None:
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["tune"] |= {"metric": "loss", "mode": "min"}
    (folder / "run.json").write_text(json.dumps(about))
    assert board(folder)[0]["best_epoch"] == "3"


@pytest.mark.parametrize("value", ["NaN", "null", '"high"', "Infinity", "true"])
def test_nonfinite_score_never_wins(folder: Path, value: str) -> None:
    file = folder / "trials" / "001_delta=0.25" / "rows.jsonl"
    file.write_text(file.read_text().replace("0.4,", f"{value},", 2))
    assert board(folder)[0]["trial"] == "000_delta=0.02"


def test_seeds_share_a_row_with_students_interval(tmp_path: Path) -> None:
    scores = {0: 0.6, 1: 0.7, 2: 0.8}
    first, second = repeated(tmp_path, scores).settings
    found = first.score("probe/factors/score")
    assert found is not None
    assert (first.seeds, first.values, found.over) == (3, {"pairs.delta": 0.1}, "seeds")
    low, high = stats.t.interval(0.95, df=2, loc=0.7, scale=0.1 / math.sqrt(3))
    assert (found.mean, found.low, found.high) == pytest.approx((0.7, low, high))
    single = second.score("probe/factors/score")
    assert single == study.Score(0.55, 0.5, 0.6, "test examples")


def test_seed_run_twice_counts_once(tmp_path: Path) -> None:
    trials = {f"00{n}": ({"run.seed": 0}, "finished", [row(1, 0.6)]) for n in range(2)}
    (setting,) = study.study([reader.read(make_run(tmp_path / "twice", trials))]).settings
    assert (len(setting.trials), setting.seeds, setting.score("probe/factors/score")) == (2, 1, study.Score(0.6))


def test_repeats_in_the_terminal_and_in_trials_csv(tmp_path: Path) -> None:
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


def test_equal_values_in_a_population_are_not_repeats(tmp_path: Path) -> None:
    trials = {f"00{n}": ({"optim.lr": 0.1}, "finished", [row(1, 0.6, **{"search/optim.lr": 0.2})]) for n in range(2)}
    folder = make_run(tmp_path / "population", trials)
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["tune"]["scheduler"] = "pbt"
    (folder / "run.json").write_text(json.dumps(about))
    settings = study.study([reader.read(folder)]).settings
    assert [setting.values for setting in settings] == [{"optim.lr": 0.2}] * 2, "the values in force at the best row"


def without_validation(folder: Path) -> Path:
    """Turn a run into one without validation scores, as older versions wrote it."""
    about = json.loads((folder / "run.json").read_text())
    about["experiment"]["tune"]["metric"] = "probe/factors/score"
    (folder / "run.json").write_text(json.dumps(about))
    for file in folder.glob("trials/*/rows.jsonl"):
        sent = [json.loads(line) for line in file.read_text().splitlines()]
        kept = [{name: value for name, value in one.items() if not name.endswith("_valid")} for one in sent]
        file.write_text("".join(json.dumps(one) + "\n" for one in kept))
    return folder


@pytest.mark.slow
def test_run_without_validation_scores_has_one_warning(folder: Path) -> None:
    """Also if newer rows have validation scores after a resume, and beside a newer run."""
    new = make_run(folder.parent / "new", {"000": ({}, "finished", [row(1, 0.1, **{VALID_SCORE: 0.9})])})
    old = without_validation(folder)
    first = board(old)[0]
    assert (first["best_epoch"], first["probe/factors/score"]) == ("2", "0.8")
    with (old / "trials" / "000_delta=0.02" / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row(4, 0.6)) + "\n")
    assert board(old)[0]["best_epoch"] == "2"
    console = Console(record=True, width=200, file=(folder.parent / "out.txt").open("w"))
    writer.publish(old, console)
    assert console.export_text().count("chosen by the test scores") == 1
    assert (old / "report.html").read_text().count("chosen by the test scores") == 1
    both = study.study([reader.read(old), reader.read(new)])
    assert (both.metric, both.chosen_on_test) == (VALID_SCORE, ["sweep"])
    writer.publish(new, console)
    assert "chosen by the test scores" not in (new / "report.html").read_text()


def test_reported_score_is_the_test_score_of_the_chosen_row(tmp_path: Path) -> None:
    """The validation score is beside it; gain compares test scores."""
    rows = [row(1, 0.5, **{VALID_SCORE: 0.7}), row(2, 0.9, **{VALID_SCORE: 0.6})]
    others = [row(1, 0.8, **{VALID_SCORE: 0.65})]
    folder = make_run(tmp_path / "run", {"000": ({"a": 1}, "finished", rows), "001": ({"a": 2}, "finished", others)})
    first, second = board(folder)
    assert (first["trial"], first["best_epoch"], first["probe/factors/score"], first[VALID_SCORE]) == (
        *("000", "1"),
        *("0.5", "0.7"),
    )
    assert float(first["probe/factors/score_gain"]) == 0.0
    assert second["probe/factors/score"] == "0.8"
    console = Console(record=True, width=160, file=(tmp_path / "out.txt").open("w"))
    writer.publish(folder, console)
    text = console.export_text()
    assert "validation" in text
    assert "best: 000, epoch 1: probe/factors/score 0.500, chosen by probe/factors/score_valid 0.700" in text


def test_leaderboard_of_several_runs(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", {"000": ({"pairs.delta": 0.1}, "finished", [row(1, 0.6)])})
    two = make_run(tmp_path / "two", {"000": ({"encoder.kind": "cnn"}, "finished", [row(1, 0.7)])})
    subject = study.study([reader.read(one), reader.read(two)])
    assert subject.keys == ("run", "pairs.delta", "encoder.kind")
    assert [list(setting.values.values()) for setting in subject.settings] == [
        ["two", 0.25, "cnn"],
        ["one", 0.1, "resnet18"],
    ], "keys that a run did not search have the value of its experiment"


def test_labels_of_similar_values_differ(tmp_path: Path) -> None:
    soft, loud = [{"kind": "gain", "low": -6}], [{"kind": "gain", "low": -12}]
    trials = {f"00{n}": ({"augment": chain}, "finished", [row(1, 0.6)]) for n, chain in enumerate((soft, loud, []))}
    subject = study.study([reader.read(make_run(tmp_path / "alike", trials))])
    assert len(set(subject.labels["augment"].values())) == 3


def test_labels_are_short() -> None:
    chain = [{"kind": "fade", "p": 1.0}, {"kind": "time_mask"}]
    found = [label(value) for value in (0.05, 3, "cnn", chain, [], {"synthetic": 0.7, "recordings": 0.3})]
    assert found == ["0.05", "3", "cnn", "fade+time_mask", "none", "recordings 0.3, synthetic 0.7"]
