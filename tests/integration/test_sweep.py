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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from doppel_ray.report import tensorboard
from doppel_ray.runs.metrics_log import read_rows
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
    """A sweep in a folder of its own, with every process that it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "runs" / "mine"
        self.marker = f"doppel_ray_test_{uuid.uuid4().hex}"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command without a terminal."""
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
        """Return the epochs of the rows that each trial has sent."""
        return {t["name"]: [row["epoch"] for row in read_rows(self.run / "trials" / t["name"])] for t in self.trials()}

    def metrics(self) -> list[dict[str, float]]:
        """Return the metrics of every row, in the order of trials and epochs."""
        rows = [row for trial in self.trials() for row in read_rows(self.run / "trials" / trial["name"])]
        return [
            {name: row[name] for name in ("loss", "pairs", "probe/factors/score", "probe/factors/score_valid")}
            for row in rows
        ]

    def run_to_end(self, *arguments: object) -> None:
        """Run a command, and assert that it succeeds."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        assert self.leaves_nothing_behind()

    def curve(self, run: str, tag: str) -> list[int]:
        """Return the steps of a curve in TensorBoard."""
        return [point.step for point in EventAccumulator(str(self.run / "trials" / run)).Reload().Scalars(tag)]

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
    """Assert that both trials have finished, with every epoch's row once."""
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


def test_results_and_files_of_a_sweep(sweep: Sweep) -> None:
    process = sweep.start_tiny()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert_whole(sweep)
    about = json.loads((sweep.run / "run.json").read_text())
    assert about["versions"]["ray"]
    assert about["experiment"]["pairs"]["delta"] == 0.25
    assert (sweep.run / "figures" / "score_against_pairs.delta.png").stat().st_size > 1000
    assert "factors score" in (sweep.run / "report.html").read_text()
    runs = {file.parent for file in sweep.run.rglob("*tfevents*")}
    assert runs == {sweep.run / "trials" / name for name in (*sweep.rows(), tensorboard.SWEEP)}, "TensorBoard's runs"
    for trial in sweep.trials():
        assert sweep.curve(trial["name"], "train/loss") == [8, 16]
        assert (sweep.run / "trials" / trial["name"] / "projector_config.pbtxt").is_file()
    assert sweep.curve(tensorboard.SWEEP, "all_trials/best") == [1, 2]
    for part in ("trials into", "a trial needs", "best checkpoint:", "tensorboard --logdir", "done in"):
        assert part in output
    assert len(output.splitlines()) < 80, "Ray's own lines are not printed"
    assert sweep.leaves_nothing_behind()

    before = {file: file.stat().st_mtime_ns for file in sweep.run.rglob("*")}
    again = sweep.start_tiny()
    refusal, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 2
    assert "already holds a run" in refusal
    assert {file: file.stat().st_mtime_ns for file in sweep.run.rglob("*")} == before, "nothing is overwritten"


def test_resume_after_ctrl_c(sweep: Sweep) -> None:
    """In the second trial, once it has sent a row."""
    process = sweep.start_tiny(train__epochs=3)

    def second_trial_is_on() -> bool:
        return process.poll() is not None or len([epochs for epochs in sweep.rows().values() if epochs]) == 2

    assert eventually(second_trial_is_on, PATIENCE)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "--resume runs/mine" in output
    assert [t["status"] for t in sweep.trials()] == ["finished", "interrupted"]
    assert sweep.leaves_nothing_behind(), "Ray ends with the driver"
    sweep.run_to_end("--resume", sweep.run)
    assert {trial["status"] for trial in sweep.trials()} == {"finished"}
    assert list(sweep.rows().values()) == [[1, 2, 3], [1, 2, 3]]
    for trial in sweep.trials():
        assert sweep.curve(trial["name"], "train/loss") == [8, 16, 24]
        assert sweep.curve(trial["name"], "train-steps/loss") == [10, 20]
    assert sweep.curve(tensorboard.SWEEP, "all_trials/best") == [1, 2]


def test_resume_after_three_kills(sweep: Sweep, tmp_path: Path) -> None:
    """With kill -9: before the first row, between a checkpoint and its probe, and after a trial; three minutes.

    A sweep of one trial is killed, and then extended to the two trials of an undisturbed sweep.
    """
    peaceful = Sweep(tmp_path / "peaceful")
    peaceful.folder.mkdir()
    output, _ = peaceful.start_tiny().communicate(timeout=PATIENCE)
    assert_whole(peaceful)
    first = sweep.run / "trials" / "000_delta=0.05"
    moments = {
        "before the first row": lambda: first.exists(),
        "between a checkpoint and its probe": lambda: (
            list(first.glob("checkpoints/epoch_*")) and not list(first.glob("rows.jsonl"))
        ),
        "after a trial has ended": lambda: "finished" in {trial["status"] for trial in sweep.trials()},
    }
    process = sweep.start_tiny(search__pairs__delta="{grid: [0.05]}")
    for moment, has_come in moments.items():
        assert eventually(has_come, PATIENCE), moment
        process.kill()
        process.communicate(timeout=PATIENCE)
        process = sweep.start("--resume", sweep.run)  # at once: what is left of the killed one is waited for
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    sweep.run_to_end("--extend", sweep.run, "--search.pairs.delta", "{grid: [0.05, 0.25]}")
    assert_whole(sweep)
    for killed, left in zip(sweep.metrics(), peaceful.metrics(), strict=True):
        assert killed == pytest.approx(left, rel=1e-4)
    peaceful.end()


def test_trials_wait_for_room(sweep: Sweep) -> None:
    """Three are to run at once; there is room for one."""
    cores = len(os.sched_getaffinity(0))
    process = sweep.start_tiny(
        tune__concurrent=3, train__cpus_per_worker=0.6 * cores, train__epochs=1, train__pairs_per_epoch=64
    )
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert "1 trial side by side" in output
    assert [trial["status"] for trial in sweep.trials()] == ["finished", "finished"]


def test_population_based_training(sweep: Sweep) -> None:
    """With δ = 0.25 the loss is higher: that trial takes the other's weights at epoch 2; a minute and a half."""
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
    assert "continues from epoch" in output
    assert {trial["status"] for trial in sweep.trials()} == {"finished"}
    for folder in forked:
        assert list(folder.glob("checkpoints_1/epoch_*")), "its later checkpoints are in a run of their own"
    for trial in sweep.trials():
        rows = read_rows(sweep.run / "trials" / trial["name"])
        epochs = [row["epoch"] for row in rows]
        assert epochs[-1] == 6
        assert epochs == sorted(set(epochs)), "every epoch once"
        assert rows[-1]["search/pairs.delta"] == trial["values"]["pairs.delta"]
        assert sweep.curve(trial["name"], "train/loss") == [row["step"] for row in rows]
        by_step = sweep.curve(trial["name"], "train-steps/loss")
        assert by_step == sorted(set(by_step)), "every point once, a fork's too"
    assert sweep.leaves_nothing_behind()


def test_mlflow_gets_every_row(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trial with MLflow's own local database; a minute."""
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    process = sweep.start_tiny(tune__log_to="[mlflow]", search__pairs__delta="{grid: [0.05]}")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    (trial,) = sweep.trials()
    for column in ("loss", "probe/factors/score"):
        logged = [point.value for point in client.get_metric_history(run.info.run_id, column)]
        assert logged == [row[column] for row in read_rows(sweep.run / "trials" / trial["name"])]
    assert run.info.status == "FINISHED"
