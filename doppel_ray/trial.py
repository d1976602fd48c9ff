"""One trial: a train run, its probes, its rows, and its record in the run's folder."""

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from doppel_ray.probe.schedule import Reports, Row, Rows, read_rows
from doppel_ray.train import log_to, snapshot, trainer

if TYPE_CHECKING:
    from doppel_ray.config import Experiment

LOG = "trial.log"
DIVERGED = "diverged.txt"
"""Says why a trial ended early. The stream and the weights are what they were, so another try would end as it did."""
NOT_SCALARS = ("epoch", "step", "pairs")


def run(experiment: "Experiment", folder: Path, send: Callable[[Row], None]) -> None:
    """Train, probe and record one point of the search; goes on where an earlier life of the same folder stopped.

    Args:
        experiment: the point.
        folder: the trial's folder: `experiment.json`, `trial.log`, `rows.jsonl`, `checkpoints/`, TensorBoard's events.
        send: takes every row, in order, each once in the trial's whole life.

    Raises:
        ray.train.TrainingFailedError: training failed more than `train.max_failures` times.
        DivergedError: it met a loss that is no number, or a collapsed embedding.
    """
    from doppel_ray.learner import DivergedError

    if (folder / DIVERGED).exists():
        raise DivergedError((folder / DIVERGED).read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps(experiment.plain(), indent=1))
    handler = log_to(folder / LOG)
    board = SummaryWriter(str(folder))

    fresh: list[Row] = []

    def record(row: Row) -> None:
        fresh.append(row)
        write_scalars(board, row)
        send(row)

    try:
        rows = Rows(experiment.probes, experiment.train.epochs, folder, record)
        known = snapshot(folder)
        rows.catch_up(known)
        failure: list[Exception] = []
        fit = threading.Thread(target=_fit, args=(experiment, folder, rows, failure), daemon=True, name="fit")
        trained = bool(known) and known[-1]["metrics"]["epoch"] >= experiment.train.epochs
        if not trained:
            fit.start()
        rows.pump(fit.is_alive)
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
        board.close()
        logging.getLogger("doppel_ray").removeHandler(handler)
        handler.close()


def trainable(base: dict[str, Any], run_folder: Path) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune runs for each trial, in a process of its own.

    Args:
        base: the experiment as plain data.
        run_folder: the sweep's folder.

    Returns:
        A function of dotted key -> what the search gave the trial.
    """

    def trial(config: dict[str, Any]) -> None:
        import ray.tune

        from doppel_ray.config import Experiment

        experiment = Experiment.model_validate(base).with_values(config)
        run(experiment, run_folder / "trials" / ray.tune.get_context().get_trial_name(), ray.tune.report)

    return trial


def _fit(experiment: "Experiment", folder: Path, rows: Rows, failure: list[Exception]) -> None:
    try:
        trainer(experiment, folder, [Reports(rows.reports)]).fit()
    except Exception as error:  # raised in the trial's own thread once the last rows are out
        logging.getLogger(__name__).exception("training failed")
        failure.append(error)


def tag(name: str) -> str:
    """TensorBoard's tag of a row's column: `train/loss`, `probe/esc10/accuracy`."""
    return name if "/" in name else f"train/{name}"


def write_scalars(board: SummaryWriter, row: Row) -> None:
    """One row's numbers, at its step."""
    for name, value in row.items():
        if isinstance(value, int | float) and name not in NOT_SCALARS:
            board.add_scalar(tag(name), value, row["step"])
    board.flush()
