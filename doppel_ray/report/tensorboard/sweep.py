"""The TensorBoard run of the whole sweep, and each trial's entry in the HParams tab."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from torch.utils.tensorboard import summary

from doppel_ray.config.variants import searched_keys
from doppel_ray.core.score_names import VALID, reported
from doppel_ray.report.leaderboard import table
from doppel_ray.report.study import study
from doppel_ray.report.tensorboard import hparams
from doppel_ray.report.tensorboard.events import EventLog, chosen_tag, tag
from doppel_ray.report.writer import FIGURES
from doppel_ray.runs import reader
from doppel_ray.runs.columns import RELATED, TRAIN
from doppel_ray.runs.metrics_log import best

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

SWEEP = "sweep"
"""Name and folder of the sweep's run; names of trials begin with a number."""
HPARAMS = ".hparams"
"""Ending of a trial's event files for the HParams tab."""
REPORT = ".report"
"""Ending of the event file with leaderboard and figures."""


class SweepWriter:
    """Writes the sweep's run, and each trial's searched values; used by the driver.

    Args:
        folder: of the sweep.
        experiment: of the sweep.
    """

    def __init__(self, folder: Path, experiment: "Experiment") -> None:
        self.folder, self.trials = folder, folder / "trials"
        search, metric = searched_keys(experiment), experiment.tune.metric
        self.texts = {key for key, space in search.items() if not hparams.is_numeric(space)}
        self.events = EventLog(self.trials / SWEEP)
        self.events.forget_after(_ended(reader.read(folder), reader.ENDED))
        rate = experiment.synth.sample_rate
        metrics = {task.name: task.spec(rate).metrics[0] for task in experiment.probes.build()}
        main = {f"probe/{task}/{name}": task for task, name in metrics.items()}
        score = f"`{reported(metric)}` of the row that is best by `{metric}`"
        self.descriptions = {
            "all_trials/best": f"{score} so far, against the number of trials that have ended.",
            "all_trials/each": f"{score} in each trial, in the order in which they ended.",
        }
        if search:
            tests = [name for name in dict.fromkeys((reported(metric), *main)) if name.startswith("probe/")]
            scores = [chosen_tag(name) for test in tests for name in (test, f"{test}{VALID}")]
            self.events.add([hparams.columns(search, [*scores, "train/loss"])])
        self.events.add(summary.custom_scalars(_layout(main)).value)
        self.events.flush()

    def begin(self, trial: str, values: Mapping[str, Any]) -> None:
        """Record a trial's values when it starts or continues."""
        _forget(self.trials / trial, HPARAMS)
        _write(self.trials / trial, HPARAMS, [hparams.start(values, self.texts)])

    def end(self, trial: str, succeeded: bool) -> None:
        """Record the end of a trial."""
        _write(self.trials / trial, HPARAMS, [hparams.end(succeeded)])
        run = reader.read(self.folder)
        chosen = {entry.name: row for entry in run.trials if (row := entry.best(run.metric, run.mode))}
        if trial in chosen:
            of_all = best(chosen.values(), run.metric, run.mode) or {}
            shown = {"all_trials/best": of_all, "all_trials/each": chosen[trial]}
            points = {name: row[reported(run.metric)] for name, row in shown.items()}
            self.events.scalars(points, _ended(run), self.descriptions)
            self.events.flush()

    def close(self) -> None:
        self.events.close()


def write_leaderboard(folder: Path) -> None:
    """Show a sweep's leaderboard and the figures in its folder in the sweep's run, in place of older ones."""
    run, sweep = reader.read(folder), folder / "trials" / SWEEP
    if not any(trial.rows for trial in run.trials):
        return
    _forget(sweep, REPORT)
    values = [*text_pb("all_trials/leaderboard", _markdown(table(study([run])))).value]
    for file in sorted((folder / FIGURES).glob("*.png")):
        picture = Summary.Image(encoded_image_string=file.read_bytes(), colorspace=4)
        values.append(Summary.Value(tag=f"all_trials/{file.stem}", image=picture))
    _write(sweep, REPORT, values, _ended(run))


def _markdown(table: Table) -> str:
    """Return a terminal's table in Markdown."""
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    lines = [[str(column.header) for column in table.columns], ["---"] * len(cells), *zip(*cells, strict=True)]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _ended(run: reader.Run, statuses: Collection[str] = reader.OVER) -> int:
    return sum(trial.status in statuses for trial in run.trials)


def _write(folder: Path, ending: str, values: Iterable[Summary.Value], step: int = 0) -> None:
    """Write values to an event file of their own."""
    events = EventLog(folder, ending)
    events.add(values, step)
    events.close()


def _forget(folder: Path, ending: str) -> None:
    """Remove earlier files of `_write`."""
    for file in folder.glob(f"events.out.tfevents.*{ending}"):
        file.unlink()


def _layout(main: Mapping[str, str]) -> dict[str, dict[str, list[Any]]]:
    """Return the layout of the Custom Scalars tab.

    Args:
        main: column of each task's main score -> the task's name.
    """
    scores: dict[str, list[Any]] = {}
    for column, task in main.items():
        low, high, mel, untrained = (tag(f"{column}_{ending}", main) for ending in RELATED)
        scores[f"{task}, with its 95 % interval"] = ["Margin", [column, low, high]]
        scores[f"{task}, beside its baselines"] = ["Multiline", [column, mel, untrained]]
        scores[f"{task}, beside its validation score"] = ["Multiline", [column, f"{column}{VALID}"]]
    curves = {name: f"train-steps/{name}" for name in TRAIN}
    return {
        "Scores": scores,
        "Training": {
            "loss": ["Multiline", [curves["loss"]]],
            "alignment and uniformity": ["Multiline", [curves["alignment"], curves["uniformity"]]],
            "gradient norm": ["Multiline", [curves["gradient_norm"]]],
            "learning rate": ["Multiline", [curves["lr"]]],
        },
        "Usage": {
            "pairs per second": ["Multiline", ["usage-steps/pairs_per_second"]],
            "share of the time that training waits for pairs": ["Multiline", ["usage-steps/wait_share"]],
            "memory of the first train worker, MiB": ["Multiline", ["usage-steps/memory_mb"]],
        },
    }
