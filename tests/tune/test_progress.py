"""What the live table says of a sweep, from rows alone."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from doppel_ray.config.experiment import Experiment
from doppel_ray.runs.reader import Trial
from doppel_ray.tune.progress import SweepProgress, duration


def row(epoch: int, score: float | None = None) -> dict[str, Any]:
    scores = {} if score is None else {"probe/factors/score_valid": score, "probe/factors/score": score / 2}
    return {"epoch": epoch, "loss": 3.0, "pairs_per_second": 300.0, "wait_share": 0.5, **scores}


@pytest.fixture
def standing(tmp_path: Path) -> SweepProgress:
    """Of four trials of ten epochs."""
    return SweepProgress(tmp_path, {**Experiment().plain(), "train": {"epochs": 10}}, 4)


def shown(standing: SweepProgress, height: int = 50) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(standing.table(height))
    return console.export_text()


def test_the_rest_is_thought_to_take_as_long_as_what_is_done_took(standing: SweepProgress) -> None:
    standing.status = {"000_a": "finished", "001_b": "running"}
    assert standing.remaining() is not None
    standing.began -= 60.0  # 10 of 40 epochs in a minute
    assert standing.remaining() == pytest.approx(180.0, abs=1.0)
    standing.add("001_b", row(10))
    assert standing.remaining() == pytest.approx(60.0, abs=1.0)


def test_what_an_earlier_life_has_done_does_not_hurry_the_estimate(standing: SweepProgress) -> None:
    standing.take_up([Trial("000_a", Path(), {}, {}, "finished", [row(10, 0.5)])])
    assert standing.remaining() is None, "nothing has been done since"
    assert standing.sentence() == "1 of 4 trials have ended; best so far 000_a, epoch 10: factors/score_valid 0.500"


def test_the_best_row_is_told_and_not_the_last_one(standing: SweepProgress) -> None:
    standing.status = {"000_a": "running"}
    for epoch, score in enumerate((0.2, 0.6, 0.4, None), start=1):
        standing.add("000_a", row(epoch, score))
    assert "epoch 2: factors/score_valid 0.600" in standing.sentence()


def test_each_trial_says_what_it_waits_for(standing: SweepProgress, tmp_path: Path) -> None:
    standing.status = dict.fromkeys(("000_a", "001_b", "002_c"), "running") | {"003_d": "waiting"}
    standing.add("001_b", row(1))
    standing.add("002_c", row(1))
    (tmp_path / "trials/002_c/checkpoints/epoch_0003").mkdir(parents=True)
    assert [standing.waits_for(name) for name in standing.status] == [
        "its first epoch",
        "generators",
        "the probe of epoch 2",
        "a place",
    ]


def test_a_table_of_many_trials_shows_those_that_run_and_then_the_best(standing: SweepProgress) -> None:
    for number in range(200):
        name = f"{number:03d}_delta=0.1"
        standing.status[name] = "running" if number == 150 else "finished"
        standing.add(name, row(10, 0.1 + number / 1000))
    text = shown(standing, height=6)
    lines = text.strip().splitlines()
    assert len(lines) == 7
    assert lines[1].startswith("150_"), "the one that runs"
    assert lines[2].startswith("199_"), "the best"
    assert "and 195 more" in lines[-1]


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (361, "6 min"), (7500, "2 h 5 min")])
def test_durations_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
