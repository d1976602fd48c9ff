"""One trial: a train run, its probes, its rows, and its record in the run's folder."""

import json
import logging
import tempfile
import threading
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.tune

from doppel_ray.cluster.nodes import dead_nodes
from doppel_ray.config.experiment import Experiment
from doppel_ray.config.search import label
from doppel_ray.core.logs import log_to
from doppel_ray.models.learner import DivergedError
from doppel_ray.report import tensorboard
from doppel_ray.runs import lineage
from doppel_ray.runs.folder import check_visible
from doppel_ray.runs.lock import ORPHANS, lock_folder
from doppel_ray.runs.metrics_log import POPULATION, RESIZE, Row, best, read_rows
from doppel_ray.runs.reader import EXPERIMENT, RUN
from doppel_ray.runs.retention import delete, delete_leftovers, drop, dropped, within_epochs
from doppel_ray.train import ray_snapshot
from doppel_ray.train.elastic import WorkerScaling
from doppel_ray.train.trainer import build_trainer, next_index, snapshot
from doppel_ray.tune.restarts import Restart, RestartPolicy
from doppel_ray.tune.rows import ReportWriter, RowAssembler

log = logging.getLogger(__name__)

LOG = "trial.log"
DIVERGED = "diverged.txt"
"""File that says why a trial diverged. Its stream and weights do not change, so a retry would diverge too."""
POINTER = "checkpoint.txt"
"""File in Ray Tune's checkpoint of a trial that names the real one."""
ALONE = WorkerScaling()
"""What a trial may use that runs without a sweep."""


def run(
    experiment: Experiment,
    folder: Path,
    send: Callable[[Row], None],
    also: Mapping[str, Any] = types.MappingProxyType({}),
    scaling: WorkerScaling = ALONE,
) -> None:
    """Train, probe and record one point of the search; resume if the folder holds an earlier attempt.

    Args:
        experiment: the point.
        folder: the trial's: `experiment.json`, `trial.log`, `rows.jsonl`, `checkpoints/`, TensorBoard's events.
        send: takes the rows in order, each once over all attempts.
        also: columns to add to every row.
        scaling: the part of the cluster that the trial may use.

    Raises:
        ray.train.TrainingFailedError: training failed more than `train.max_failures` times.
        DivergedError: training diverged (`train.on_divergence`).
    """
    if (folder / DIVERGED).exists():
        raise DivergedError((folder / DIVERGED).read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPERIMENT).write_text(json.dumps(experiment.plain(), indent=1))
    delete_leftovers(folder)
    handler = log_to(folder / LOG)
    board = tensorboard.TrialWriter(folder)
    rows_sent = read_rows(folder)
    earlier = len(rows_sent)

    def record(row: Row) -> None:
        rows_sent.append(row)
        _record(experiment, folder, board, rows_sent)
        send(row)

    try:
        rows = RowAssembler(experiment.probes, experiment.train.epochs, folder, record, also)
        known = snapshot(folder)
        if not known and (forks := lineage.forks(folder)):
            rows.add_event(_fork_event(forks[-1]))
        rows.catch_up(known)
        training = Training(experiment, folder, rows, scaling)
        is_trained = bool(known) and known[-1]["metrics"]["epoch"] >= experiment.train.epochs
        if not is_trained:
            training.start()
        rows.pump(training.is_alive, board.steps)
        if is_trained and rows_sent and len(rows_sent) == earlier:
            send(rows_sent[-1])  # Ray Tune had lost track of a finished trial; it needs a row
        if training.error is not None:
            raise training.error
        if rows.diverged is not None:
            raise _diverged(folder, rows.diverged)
    finally:
        board.close()
        logging.getLogger("doppel_ray").removeHandler(handler)
        handler.close()


def _record(experiment: Experiment, folder: Path, board: tensorboard.TrialWriter, rows: list[Row]) -> None:
    """Show the newest of a trial's rows in TensorBoard; delete the checkpoints that are no longer kept."""
    row, tune = rows[-1], experiment.tune
    if row["epoch"] == 1:  # not at the start, which is busy
        board.sounds(experiment)
    board.row(row, best(rows, tune.metric, tune.mode), tune.metric)
    if (keep := experiment.train.keep) is not None:
        drop(folder, dropped(keep, rows, tune.metric, tune.mode))
    delete(within_epochs(folder / lineage.train_run(folder), row["step"]))


def _fork_event(fork: lineage.Fork) -> str:
    values = ", ".join(f"{key} {label(value)}" for key, value in fork.values.items())
    return f"continues from epoch {fork.epoch} of {trial_of(fork.source)} with {values}"


def _diverged(folder: Path, reason: str) -> DivergedError:
    """Write down why a trial diverged, for later attempts, and return it as an error."""
    good = snapshot(folder)
    message = (
        f"{reason}. The last good checkpoint is {good[-1]['checkpoint'] if good else 'none'}. "
        "Lower optim.lr, set train.clip, or let training roll back by itself: train.on_divergence return"
    )
    (folder / DIVERGED).write_text(message, encoding="utf-8")
    return DivergedError(message)


class Training(threading.Thread):
    """Trains a trial to its end, beside the thread that sends its rows.

    Each pass of its loop is a run of Ray Train, which resumes from the newest checkpoint.

    Args:
        experiment: the trial's.
        folder: the trial's.
        rows: gets the reports and events.
        scaling: the part of the cluster that the trial may use.
    """

    def __init__(self, experiment: Experiment, folder: Path, rows: RowAssembler, scaling: WorkerScaling) -> None:
        super().__init__(daemon=True, name="training")
        self.experiment, self.folder, self.rows, self.scaling = experiment, folder, rows, scaling
        self.policy = RestartPolicy(experiment.train)
        self.error: Exception | None = None
        """Why training failed, once it has."""

    def run(self) -> None:
        """Train until the trial is done or has failed."""
        most = before = self.experiment.train.workers[1]
        while True:
            workers = self.scaling.workers(self.experiment, self.policy.below)
            if workers != before:
                self.rows.add_event(f"training continues with {workers} train workers, of at most {most}")
            before = workers
            dead = dead_nodes()
            try:
                if not self._fit(workers):
                    return
                self.policy.below = None
            except Exception as error:
                restart = self.policy.after(error, workers, bool(dead_nodes() - dead))
                if restart is None:
                    log.exception("training failed")
                    self.error = error
                    return
                if restart is Restart.NO_ROOM:
                    self.rows.add_event(f"no room for {workers} train workers was found in time")
                elif restart is Restart.CONTROLLER_DIED:
                    self.rows.add_event("Ray Train's controller died; training restarts from the last checkpoint")

    def _fit(self, workers: int) -> bool:
        """Run Ray Train; return whether it ended only to restart with more workers."""
        start = next_index(self.folder)
        ray_snapshot.forget_deleted(self.folder / lineage.train_run(self.folder))
        build_trainer(self.experiment, self.folder, [ReportWriter(self.rows.reports)], workers, self.scaling).fit()
        known = snapshot(self.folder)
        return bool(known) and known[-1]["metrics"]["pairs"] > start and RESIZE in known[-1]["metrics"]


def trainable(base: dict[str, Any], run_folder: Path, scaling: WorkerScaling) -> Callable[[dict[str, Any]], None]:
    """Return the function that Ray Tune runs for each trial, in a process of its own.

    Args:
        base: the experiment as plain data.
        run_folder: the sweep's.
        scaling: the part of the cluster that each trial may use.

    Returns:
        A function of dotted key -> value that the search gave the trial.
    """

    def trial(config: dict[str, Any]) -> None:
        experiment = Experiment.model_validate(base).with_values(config)
        check_visible(run_folder / RUN)
        folder = run_folder / "trials" / ray.tune.get_context().get_trial_name()
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, patience=ORPHANS):
            if experiment.tune.scheduler != "pbt":
                run(experiment, folder, ray.tune.report, scaling=scaling)
                return
            if (given := ray.tune.get_checkpoint()) is not None:
                with given.as_directory() as pointer:
                    source = Path((Path(pointer) / POINTER).read_text(encoding="utf-8"))
                if folder not in source.parents:
                    lineage.fork(folder, source, config)
            # A population's values change while it trains: each row holds its own.
            values = {f"{POPULATION}{key}": value for key, value in config.items()}
            run(experiment, folder, _report_with_pointer, values, scaling)

    return trial


def _report_with_pointer(row: Row) -> None:
    """Report a row with a small checkpoint that names the real one.

    Ray Tune copies its checkpoints about, and hands one to each trial that is to continue from another.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / POINTER).write_text(row["checkpoint"], encoding="utf-8")
        ray.tune.report(row, checkpoint=ray.tune.Checkpoint.from_directory(folder))


def trial_of(checkpoint: str) -> str:
    """Return the name of the trial that a checkpoint is of."""
    return Path(checkpoint).parent.parent.name
