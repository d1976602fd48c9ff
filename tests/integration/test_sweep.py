"""The sweep as its user runs it: `python -m doppel_ray.tune` in a process of its own, with a Ray of its own.

A tiny sweep takes about a minute on two idle cores, most of it the start of its processes.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doppel_ray.rows import read_rows
from tests.conftest import REPOSITORY
from tests.integration.processes import eventually, marked

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 600
"""Seconds after which a sweep of a minute is taken to hang, on a machine that may be busy."""

TINY = {
    "run.name": "mine",
    "synth.duration": 0.5,
    "encoder.width": 8,
    "train.epochs": 2,
    "train.pairs_per_epoch": 256,
    "train.batch_size": 32,
    "train.cpus_per_worker": 0.5,
    "generators.0.num_cpus": 0.4,
    "probes.tasks": "[{kind: factors, sounds: 128}]",
    "probes.cpus": 0.1,
    "tune.concurrent": 1,
    "tune.scheduler": "fifo",
    "search.pairs.delta": "{grid: [0.05, 0.25]}",
}


class Sweep:
    """A sweep in a folder of its own, and every process that it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "runs" / "mine"
        self.marker = f"doppel_ray_test_{uuid.uuid4().hex}"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """As typed in a shell of its own, with no terminal."""
        environment = {**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(REPOSITORY), "MARKER": self.marker}
        environment = {k: v for k, v in environment.items() if not k.startswith(("RAY_JOB", "RAY_RAYLET"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "doppel_ray.tune", *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def start_tiny(self, **changes: object) -> subprocess.Popen[str]:
        settings = TINY | {key.replace("__", "."): value for key, value in changes.items()}
        return self.start(*(part for key, value in settings.items() for part in (f"--{key}", value)))

    def trials(self) -> list[dict[str, Any]]:
        file = self.run / "trials.json"
        return json.loads(file.read_text()) if file.exists() else []

    def rows(self) -> dict[str, list[int]]:
        """The epochs of the rows that each trial has sent."""
        return {t["name"]: [row["epoch"] for row in read_rows(self.run / "trials" / t["name"])] for t in self.trials()}

    def leaves_nothing_behind(self) -> bool:
        # After a kill -9 Ray's daemons end at once, and its workers once they have missed them for a minute.
        return eventually(lambda: not marked(self.marker), 120)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        eventually(lambda: not marked(self.marker), 20)
        for pid in marked(self.marker):  # of this test's own sweep alone
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    made = Sweep(tmp_path)
    yield made
    made.end()


def assert_whole(sweep: Sweep) -> None:
    """Two trials, both finished, with every epoch's row once."""
    assert [(t["values"], t["status"]) for t in sweep.trials()] == [
        ({"pairs.delta": 0.05}, "finished"),
        ({"pairs.delta": 0.25}, "finished"),
    ]
    assert list(sweep.rows().values()) == [[1, 2], [1, 2]]
    with (sweep.run / "leaderboard.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert sorted(row["pairs.delta"] for row in table) == ["0.05", "0.25"]
    for row in table:
        for score in ("probe/factors/score", "probe/factors/score_mel", "probe/factors/score_untrained"):
            assert float(row[score]) < 1.0
        assert Path(row["checkpoint"]).is_dir()


def test_a_sweep_ends_with_a_leaderboard_a_picture_and_tensorboard_and_its_folder_is_safe(sweep: Sweep) -> None:
    process = sweep.start_tiny()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert_whole(sweep)
    about = json.loads((sweep.run / "run.json").read_text())
    assert about["versions"]["ray"]
    assert about["experiment"]["pairs"]["delta"] == 0.25
    assert (sweep.run / "figures" / "score_against_pairs.delta.png").stat().st_size > 1000
    assert "factors score" in (sweep.run / "report.html").read_text()
    for trial in sweep.trials():
        assert list((sweep.run / "trials" / trial["name"]).glob("events.out.tfevents.*")), "TensorBoard's events"
    for part in ("trials into", "a trial needs", "best checkpoint:", "tensorboard --logdir", "done in"):
        assert part in output
    assert len(output.splitlines()) < 80, "quiet: no flood of Ray's own lines"
    assert sweep.leaves_nothing_behind()

    before = {file: file.stat().st_mtime_ns for file in sweep.run.rglob("*")}
    again = sweep.start_tiny()
    refusal, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 2
    assert "already holds a run" in refusal
    assert {file: file.stat().st_mtime_ns for file in sweep.run.rglob("*")} == before, "nothing is overwritten"


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-C", "kill -9 of the driver"])
def test_an_interrupted_sweep_goes_on_and_ends_with_the_same_trials(sweep: Sweep, blow: signal.Signals) -> None:
    """Interrupted in its second trial, once that has sent a row; resumed, it has the rows of a sweep left in peace."""
    process = sweep.start_tiny(train__epochs=3)

    def second_trial_is_on() -> bool:
        return process.poll() is not None or len([epochs for epochs in sweep.rows().values() if epochs]) == 2

    assert eventually(second_trial_is_on, PATIENCE)
    assert process.poll() is None, process.communicate()[0]
    if blow == signal.SIGINT:
        os.killpg(process.pid, blow)  # as a terminal does
    else:
        process.send_signal(blow)
    output, _ = process.communicate(timeout=PATIENCE)
    if blow == signal.SIGINT:
        assert process.returncode == 130, output
        assert "--resume runs/mine" in output
        assert [t["status"] for t in sweep.trials()] == ["finished", "interrupted"]
    assert sweep.leaves_nothing_behind(), "Ray ends with the driver"
    names = [trial["name"] for trial in sweep.trials()]

    resumed = sweep.start("--resume", sweep.run)
    output, _ = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, output
    assert [trial["name"] for trial in sweep.trials()] == names
    assert {trial["status"] for trial in sweep.trials()} == {"finished"}
    assert list(sweep.rows().values()) == [[1, 2, 3], [1, 2, 3]]
    assert sweep.leaves_nothing_behind()


def test_trials_that_do_not_fit_side_by_side_wait_their_turn(sweep: Sweep) -> None:
    """Three at once are asked for; one and a half CPUs each leave room for one on two cores."""
    cores = len(os.sched_getaffinity(0))
    process = sweep.start_tiny(
        tune__concurrent=3, train__cpus_per_worker=0.6 * cores, train__epochs=1, train__pairs_per_epoch=64
    )
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert "1 trial side by side" in output
    assert [trial["status"] for trial in sweep.trials()] == ["finished", "finished"]


def test_the_weakest_of_a_population_goes_on_from_the_strongest(sweep: Sweep) -> None:
    """With δ = 0.25 the loss is higher: that trial takes up the other's weights at epoch 2; a minute and a half."""
    process = sweep.start_tiny(
        tune__scheduler="pbt",
        tune__interval=2,
        tune__grace=2,
        tune__quantile=0.5,
        tune__concurrent=2,
        tune__metric="loss",
        tune__mode="min",
        train__epochs=6,
        train__pairs_per_epoch=2048,
        train__cpus_per_worker=0.3,
        generators__0__num_cpus=0.3,
        probes__tasks="[]",
    )
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    forked = [folder.parent for folder in sweep.run.glob("trials/*/lineage.json")]
    assert forked, output
    assert "goes on from epoch" in output
    assert {trial["status"] for trial in sweep.trials()} == {"finished"}
    for folder in forked:
        assert list(folder.glob("checkpoints_1/epoch_*")), "its later checkpoints are in a run of their own"
    for trial in sweep.trials():
        rows = read_rows(sweep.run / "trials" / trial["name"])
        epochs = [row["epoch"] for row in rows]
        assert epochs[-1] == 6
        assert epochs == sorted(set(epochs)), "every epoch once"
        assert rows[-1]["search/pairs.delta"] == trial["values"]["pairs.delta"]
    assert sweep.leaves_nothing_behind()
