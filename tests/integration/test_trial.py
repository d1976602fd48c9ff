"""One trial with a real Ray: the same result with any number of workers, and after failures.

Each run of a trial takes 15 to 25 s, most of it the start of half a dozen processes.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.train

from doppel_ray.config.experiment import Experiment
from doppel_ray.models import checkpoint
from doppel_ray.models.learner import DivergedError
from doppel_ray.runs.metrics_log import STEPS, read_rows
from doppel_ray.train.ray_snapshot import SNAPSHOT
from doppel_ray.tune import trial
from tests.integration.processes import descendants, eventually
from tests.metadata import Metadata

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

Row = dict[str, Any]
EPOCHS = 3
TINY: dict[str, Any] = {
    "synth": {"duration": 0.5},
    "encoder": {"kind": "cnn", "width": 8},
    "head": {"kind": "mlp", "hidden": 32, "size": 16},
    # Training is chaotic: at AdamW's 1e-3 the order of the sounds within a batch alone, a matter of rounding, moves the
    # loss by 1e-3 within 48 steps (measured). At this rate it moves by 1e-5; other sounds would still move it by more.
    "optim": {"kind": "sgd", "lr": 3e-4, "reference_batch": None, "schedule": "cosine"},
    "train": {"epochs": EPOCHS, "pairs_per_epoch": 512, "batch_size": 32, "precision": "fp32", "cpus_per_worker": 0.5},
    "generators": [{"num_cpus": 0.5}],
    "probes": {"tasks": [], "cpus": 0.5},
}


def experiment(**sections: Any) -> Experiment:
    """Return the tiny experiment with other values in its sections, or other lists."""
    changed = {name: TINY.get(name, {}) | values for name, values in sections.items() if isinstance(values, dict)}
    return Experiment.model_validate(TINY | sections | changed)


def run(of: Experiment, folder: Path, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Run a trial into its folder; return the rows that it sent."""
    sent: list[Row] = []

    def send(row: Row) -> None:
        sent.append(row)
        on_row(row)

    trial.run(of, folder, send)
    return sent


def kill_after_epoch(epoch: int, named: str = "TrainWorker") -> Callable[[Row], None]:
    def on_row(row: Row) -> None:
        if row["epoch"] == epoch:
            processes = descendants(named)
            assert processes, f"no {named} to kill"
            for process in processes:  # one of an earlier trial may be about to end
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    return on_row


def last_steps(folder: Path) -> float:
    """Return the last point of a trial's loss by step, a mean over ten steps."""
    return json.loads((folder / STEPS).read_text().splitlines()[-1])["loss"]


def losses(rows: list[Row]) -> list[float]:
    return [row["loss"] for row in rows]


def events(rows: list[Row]) -> str:
    """Return the events of all rows, a line each."""
    return "\n".join(event for row in rows for event in row["events"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of a trial with one worker and no failures."""
    folder = tmp_path_factory.mktemp("run") / "trials" / "undisturbed"
    rows = run(experiment(), folder)
    assert read_rows(folder) == rows
    return rows


def assert_same_training(rows: list[Row], undisturbed: list[Row]) -> None:
    """Assert that every epoch is there once, on the same indices, with the same losses."""
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert [row["pairs"] for row in rows] == [512 * (k + 1) for k in range(EPOCHS)]
    assert losses(rows) == pytest.approx(losses(undisturbed), abs=1e-4)


def test_trial_learns_and_records_its_rows(undisturbed: list[Row]) -> None:
    assert undisturbed[-1]["loss"] < undisturbed[0]["loss"]
    assert all(row["events"] == [] for row in undisturbed)
    assert all(row["generator_restarts"] == 0 for row in undisturbed)
    for row in undisturbed:
        assert checkpoint.position(Path(row["checkpoint"])).next_index == row["pairs"]
        checkpoint.load(Path(row["checkpoint"]))


def test_two_workers_train_as_one(tmp_path: Path, undisturbed: list[Row]) -> None:
    assert_same_training(run(experiment(train={"workers": 2}), tmp_path / "trials" / "two"), undisturbed)


@pytest.mark.parametrize(
    ("killed", "event"),
    [("TrainWorker", "train worker 0 failed"), ("TrainController", "Ray Train's controller died")],
)
def test_resume_after_kill(killed: str, event: str, tmp_path: Path, undisturbed: list[Row]) -> None:
    rows = run(experiment(), tmp_path / "trials" / "killed", on_row=kill_after_epoch(1, killed))
    assert_same_training(rows, undisturbed)
    assert event in events(rows)


@ray.remote(num_cpus=0)
class TrialProcess:
    """A trial in an actor, as in a sweep."""

    def run(self, of: dict[str, Any], folder: Path) -> list[Row]:
        return run(Experiment.model_validate(of), folder)


def test_trial_in_an_actor_controls_its_workers_itself(tmp_path: Path, undisturbed: list[Row]) -> None:
    """As in a sweep: no process for the controller; after a killed worker the rows are the same."""
    folder = tmp_path / "trials" / "actor"
    rows = TrialProcess.remote().run.remote(experiment().plain(), folder)
    assert eventually(lambda: len(read_rows(folder)) >= 1, 600)
    assert not descendants("TrainController")
    for worker in descendants("TrainWorker"):
        os.kill(worker, signal.SIGKILL)
    found = ray.get(rows)
    assert_same_training(found, undisturbed)
    assert "train worker 0 failed" in events(found)


def test_resume_within_an_epoch_after_a_spot_notice(tmp_path: Path, undisturbed: list[Row]) -> None:
    """Two workers, all steps in one epoch; both are killed once the notice has led to a checkpoint."""
    folder = tmp_path / "trials" / "spot"

    def is_registered() -> bool:
        return any("step_" in file.read_text() for file in folder.glob(f"checkpoints/{SNAPSHOT}"))

    def kill() -> None:
        eventually(is_registered, 300)
        for worker in descendants("TrainWorker"):
            os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with Metadata() as service:
        service.notice = {"action": "terminate", "time": "2026-11-22T08:22:00Z"}
        size = {"workers": 2, "epochs": 1, "pairs_per_epoch": EPOCHS * 512}
        spot = {"spot": "aws", "spot_address": service.address}
        (row,) = run(experiment(train=size | spot), folder)
    killer.join()
    assert "is about to be taken away (train.spot)" in events([row])
    assert "train worker 0 failed" in events([row]) or "train worker 1 failed" in events([row])
    assert row["pairs_from"] > 0, "its means are of the rest of the epoch"
    assert row["pairs"] == undisturbed[-1]["pairs"]
    other = Path(undisturbed[-1]["checkpoint"]).parent.parent
    assert last_steps(folder) == pytest.approx(last_steps(other), abs=1e-4)


def test_killed_generator_is_an_event(tmp_path: Path, undisturbed: list[Row]) -> None:
    """SIGKILL while it makes its first block."""

    def kill() -> None:
        eventually(lambda: descendants("MapWorker(MapBatches(Generator)).submit"), 300)
        os.kill(descendants("MapWorker(MapBatches(Generator)).submit")[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    rows = run(experiment(), tmp_path / "trials" / "killed")
    killer.join()
    assert_same_training(rows, undisturbed)
    assert rows[-1]["generator_restarts"] == 1
    assert "a generator died and was restarted" in events(rows)


def test_resume_of_a_failed_trial(tmp_path: Path, undisturbed: list[Row]) -> None:
    """No failure is allowed and a worker is killed, so the trial fails; then it runs again in the same folder."""
    folder = tmp_path / "trials" / "stopped"
    fragile = experiment(train={"max_failures": 0})
    first: list[Row] = []

    def on_row(row: Row) -> None:
        first.append(row)
        kill_after_epoch(1)(row)

    with pytest.raises(ray.train.TrainingFailedError):
        run(fragile, folder, on_row)
    assert 1 <= len(first) < EPOCHS
    second = run(fragile, folder)
    assert_same_training(first + second, undisturbed)
    assert read_rows(folder) == first + second


@pytest.mark.parametrize(
    ("probes", "event"),
    [
        ({"tasks": [{"kind": "factors", "sounds": 128}], "timeout": 0.01}, "took more than 0 s (probes.timeout)"),
        ({"tasks": ["esc50"], "root": "nowhere"}, "there is no such folder"),
    ],
    ids=["a probe that takes too long", "a probe that fails"],
)
def test_failed_probe_marks_its_row(probes: dict[str, Any], event: str, tmp_path: Path) -> None:
    wanted = experiment(probes=probes, train={"epochs": 2, "pairs_per_epoch": 64})
    rows = run(wanted, tmp_path / "trials" / "probed")
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["probe/failed"] == 1
        assert f"the probe of epoch {row['epoch']}" in events([row])
        assert event in events([row])
        assert not any(name.startswith(("probe/factors", "probe/esc50")) for name in row)


def test_probe_scores_come_with_the_row(tmp_path: Path) -> None:
    wanted = experiment(
        probes={"tasks": [{"kind": "factors", "sounds": 128}], "every": 2}, train={"epochs": 3, "pairs_per_epoch": 64}
    )
    rows = run(wanted, tmp_path / "trials" / "probed")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    scored = [row["epoch"] for row in rows if "probe/factors/score" in row]
    assert scored == [2, 3], "every second epoch, and the last"
    for row in rows[1:]:
        assert {"loss", "probe/factors/score_mel", "probe/factors/score_untrained"} <= row.keys()
        assert row["probe/failed"] == 0


def test_divergence_ends_the_trial_and_its_retry(tmp_path: Path) -> None:
    wild = experiment(optim={"lr": 1e30})
    ending = r"(loss|gradient_norm|weights) is \w+ (at|after) step \d+ .*last good checkpoint is none"
    with pytest.raises(DivergedError, match=ending):
        run(wild, tmp_path)
    with pytest.raises(DivergedError, match=r"train\.on_divergence return"):
        run(wild, tmp_path)
    assert not read_rows(tmp_path)


def test_divergence_in_the_last_batch_of_an_epoch(tmp_path: Path) -> None:
    """Epochs of one batch, each of which diverges: three rollbacks, then the end."""
    train = {"on_divergence": "return", "epochs": 9, "pairs_per_epoch": 32}
    rows: list[Row] = []
    with pytest.raises(DivergedError, match=r"(loss|gradient_norm|weights) is \w+ (at|after) step"):
        run(experiment(optim={"lr": 1e30, "schedule": "constant"}, train=train), tmp_path, rows.append)
    assert [row["returns"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["precision"] == "fp32"
        model, _ = checkpoint.load(Path(row["checkpoint"]))
        assert all(value.isfinite().all() for value in model.state_dict().values())
