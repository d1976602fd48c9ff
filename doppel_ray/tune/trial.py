"""One trial: a train run, its probes, its rows, and its record in the run's folder."""

import json
import logging
import tempfile
import threading
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.exceptions
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError

from doppel_ray.config.search import label
from doppel_ray.core.logs import log_to
from doppel_ray.models.learner import DivergedError
from doppel_ray.report import tensorboard
from doppel_ray.runs import lineage
from doppel_ray.runs.lock import ORPHANS, lock_folder
from doppel_ray.runs.metrics_log import POPULATION, RESIZE, Row, best, read_rows
from doppel_ray.runs.retention import delete, drop, dropped, within_epochs
from doppel_ray.train import ray_snapshot
from doppel_ray.train.elastic import ALONE, WorkerScaling
from doppel_ray.train.trainer import next_index, snapshot, trainer
from doppel_ray.tune.probing import Reports, Rows

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

LOG = "trial.log"
DIVERGED = "diverged.txt"
"""Says why a trial ended early. The stream and the weights are what they were, so another try would end as it did."""
POINTER = "checkpoint.txt"


def run(
    experiment: "Experiment",
    folder: Path,
    send: Callable[[Row], None],
    also: Mapping[str, Any] = types.MappingProxyType({}),
    room: WorkerScaling = ALONE,
) -> None:
    """Train, probe and record one point of the search; goes on where an earlier life of the same folder stopped.

    Args:
        experiment: the point.
        folder: the trial's folder: `experiment.json`, `trial.log`, `rows.jsonl`, `checkpoints/`, TensorBoard's events.
        send: takes every row, in order, each once in the trial's whole life.
        also: what every row says beside its metrics.
        room: what it may count on.

    Raises:
        ray.train.TrainingFailedError: training failed more than `train.max_failures` times.
        DivergedError: it met a loss that is no number, or a collapsed embedding.
    """
    if (folder / DIVERGED).exists():
        raise DivergedError((folder / DIVERGED).read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps(experiment.plain(), indent=1))
    handler = log_to(folder / LOG)
    past = lineage.forks(folder)
    shown = tensorboard.TrialWriter(folder)
    fresh: list[Row] = []

    def record(row: Row) -> None:
        if row["epoch"] == 1:  # not at the start, which has enough to do
            shown.sounds(experiment)
        fresh.append(row)
        sent, tune = read_rows(folder), experiment.tune
        shown.row(row, best(sent, tune.metric, tune.mode), tune.metric)
        if (keep := experiment.train.keep) is not None:
            drop(folder, dropped(keep, sent, tune.metric, tune.mode))
        delete(within_epochs(folder / lineage.train_run(folder), row["step"]))
        send(row)

    try:
        rows = Rows(experiment.probes, experiment.train.epochs, folder, record, also)
        known = snapshot(folder)
        if past and not known:
            rows.tell(
                f"goes on from epoch {past[-1].epoch} of {trial_of(past[-1].source)} with {_shown(past[-1].values)}"
            )
        rows.catch_up(known)
        failure: list[Exception] = []
        fit = threading.Thread(target=_fit, args=(experiment, folder, rows, failure, room), daemon=True, name="fit")
        trained = bool(known) and known[-1]["metrics"]["epoch"] >= experiment.train.epochs
        if not trained:
            fit.start()
        rows.pump(fit.is_alive, shown.steps)
        if trained and (earlier := read_rows(folder)) and not fresh:
            send(earlier[-1])  # Ray Tune had lost track of a trial that was over; it wants to hear of a row
        if failure:
            raise failure[0]
        if rows.diverged is not None:
            good = snapshot(folder)
            told = (
                f"{rows.diverged}. The last good checkpoint is {good[-1]['checkpoint'] if good else 'none'}. "
                "Lower optim.lr or set train.clip, or let it go on by itself: train.on_divergence return"
            )
            (folder / DIVERGED).write_text(told)
            raise DivergedError(told)
    finally:
        shown.close()
        logging.getLogger("doppel_ray").removeHandler(handler)
        handler.close()


def trainable(base: dict[str, Any], run_folder: Path, room: WorkerScaling) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune runs for each trial, in a process of its own.

    Args:
        base: the experiment as plain data.
        run_folder: the sweep's folder.
        room: what each trial may count on.

    Returns:
        A function of dotted key -> what the search gave the trial.
    """

    def trial(config: dict[str, Any]) -> None:
        import ray.tune

        from doppel_ray.config.experiment import Experiment

        experiment = Experiment.model_validate(base).with_values(config)
        folder = run_folder / "trials" / ray.tune.get_context().get_trial_name()
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, patience=ORPHANS):
            if experiment.tune.scheduler != "pbt":
                run(experiment, folder, ray.tune.report, room=room)
                return
            if (given := ray.tune.get_checkpoint()) is not None:
                with given.as_directory() as pointer:
                    source = Path((Path(pointer) / POINTER).read_text())
                if folder not in source.parents:
                    lineage.fork(folder, source, config)
            # They change while it runs, so that each row says which were in force.
            values = {f"{POPULATION}{key}": value for key, value in config.items()}
            run(experiment, folder, _send_with_pointer, values, room)

    return trial


def _send_with_pointer(row: Row) -> None:
    """Report a row with a checkpoint that says where the checkpoint is: Ray Tune hands it to a trial that is to go on
    from this one, and copies it about.
    """
    import ray.tune

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / POINTER).write_text(row["checkpoint"])
        ray.tune.report(row, checkpoint=ray.tune.Checkpoint.from_directory(folder))


def _fit(experiment: "Experiment", folder: Path, rows: Rows, failure: list[Exception], room: WorkerScaling) -> None:
    """Train to the end; what it fails of is raised in the trial's own thread, once the last rows are out.

    Life after life: Ray Train starts lost workers again, but neither its own controller nor another number of workers.
    """
    train, run = experiment.train, folder / lineage.train_run(folder)
    losses, below, had = 0, None, train.workers[1]
    while True:
        workers, start = room.workers(experiment, below), next_index(folder)
        if workers != had:
            rows.tell(f"training goes on with {workers} train workers, of at most {train.workers[1]}")
        had, below = workers, None
        try:
            ray_snapshot.forget_deleted(run)
            trainer(experiment, folder, [Reports(rows.reports)], workers, room).fit()
            if not _makes_room(folder, start):
                return
        except Exception as error:
            if train.elastic and isinstance(error, ControllerError) and workers > train.worker_counts[-1]:
                below = workers
                rows.tell(f"no room for {workers} train workers was found in time")
                continue
            losses += not isinstance(error, PreemptionError)
            died = isinstance(error, ray.exceptions.ActorDiedError)
            lost = died or (train.elastic and isinstance(error, WorkerGroupError | PreemptionError))
            if not lost or losses > train.max_failures:
                logging.getLogger(__name__).exception("training failed")
                failure.append(error)
                return
            if died:
                rows.tell("Ray Train's controller died and is started again, training goes on from the last checkpoint")


def _makes_room(folder: Path, start: int) -> bool:
    """Whether training, which went on from index `start`, has ended so that more workers can go on with it."""
    known = snapshot(folder)
    return bool(known) and known[-1]["metrics"]["pairs"] > start and RESIZE in known[-1]["metrics"]


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {label(value)}" for key, value in values.items())


def trial_of(checkpoint: str) -> str:
    """Name of the trial that a checkpoint is of."""
    return Path(checkpoint).parent.parent.name
