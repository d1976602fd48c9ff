"""The live table and the summary of a sweep, from its rows."""

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
def progress(tmp_path: Path) -> SweepProgress:
    """Four trials of ten epochs."""
    return SweepProgress(tmp_path, {**Experiment().plain(), "train": {"epochs": 10}}, 4)


def shown(progress: SweepProgress, height: int = 50) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(progress.table(height))
    return console.export_text()


def test_remaining_time(progress: SweepProgress) -> None:
    progress.status = {"000_a": "finished", "001_b": "running"}
    assert progress.remaining() is not None
    progress.began -= 60.0  # 10 of 40 epochs in a minute
    assert progress.remaining() == pytest.approx(180.0, abs=1.0)
    progress.add("001_b", row(10))
    assert progress.remaining() == pytest.approx(60.0, abs=1.0)


def test_remaining_time_after_resume(progress: SweepProgress) -> None:
    progress.restore([Trial("000_a", Path(), {}, {}, "finished", [row(10, 0.5)])])
    assert progress.remaining() is None, "no epoch has ended since"
    assert progress.summary() == "1 of 4 trials have ended; best so far 000_a, epoch 10: factors/score_valid 0.500"


def test_summary_has_the_best_row(progress: SweepProgress) -> None:
    progress.status = {"000_a": "running"}
    for epoch, score in enumerate((0.2, 0.6, 0.4, None), start=1):
        progress.add("000_a", row(epoch, score))
    assert "epoch 2: factors/score_valid 0.600" in progress.summary()


def test_waits_for(progress: SweepProgress, tmp_path: Path) -> None:
    progress.status = dict.fromkeys(("000_a", "001_b", "002_c"), "running") | {"003_d": "waiting"}
    progress.add("001_b", row(1))
    progress.add("002_c", row(1))
    (tmp_path / "trials/002_c/checkpoints/epoch_0003").mkdir(parents=True)
    assert [progress.waits_for(name) for name in progress.status] == [
        "its first epoch",
        "generators",
        "the probe of epoch 2",
        "a place",
    ]


def test_table_of_many_trials(progress: SweepProgress) -> None:
    for number in range(200):
        name = f"{number:03d}_delta=0.1"
        progress.status[name] = "running" if number == 150 else "finished"
        progress.add(name, row(10, 0.1 + number / 1000))
    text = shown(progress, height=6)
    lines = text.strip().splitlines()
    assert len(lines) == 7
    assert lines[1].startswith("150_"), "the running trial"
    assert lines[2].startswith("199_"), "the best"
    assert "and 195 more" in lines[-1]


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (361, "6 min"), (7500, "2 h 5 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
