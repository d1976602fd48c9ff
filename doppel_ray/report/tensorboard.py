"""TensorBoard: every tag, what it means, and who writes it.

The log directory is `RUN/trials`. Each trial is a run in it, written by the trial's own process alone: TensorBoard
follows one file of a run at a time, and what two processes write side by side is lost or shown twice. `sweep` beside
them is the run of the sweep as a whole, which the driver writes, as it does what the HParams tab needs of each trial.

The step axis of a trial is that of the optimizer. Tags are those of the rows, in groups whose names, in the order of
the alphabet, begin with what matters most (TensorBoard's own order puts `a-b` behind `a`, but `a_b` anywhere):

- `all_trials`: the sweep so far, its leaderboard and its figures.
- `chosen`: test and validation scores of the row that validation has chosen so far, which the HParams tab shows too.
- `probe`: the first metric of each task, test and validation score; `probe-details`: what else a probe gives.
- `search`: values that population-based training has in force.
- `sounds`: the first pairs of the stream, to listen to and to look at.
- `train`: what is learnt, a point an epoch; `train-steps`: the same, every `train.log_every` steps.
- `usage` and `usage-steps`: speed, memory, and what went wrong.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import summary

from doppel_ray.config.search import Space, label
from doppel_ray.config.variants import searched
from doppel_ray.core.score_names import VALID, reported
from doppel_ray.report.leaderboard import table
from doppel_ray.report.study import study
from doppel_ray.report.writer import FIGURES
from doppel_ray.runs import reader
from doppel_ray.runs.columns import BESIDE, TRAIN, USAGE, about, firsts
from doppel_ray.runs.metrics_log import STEPS, JsonlFollower, Row, best, numbers

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

SWEEP = "sweep"
"""The run of the sweep as a whole, and its folder; names of trials begin with a number."""
HPARAMS = ".hparams"
"""Ends the names of the files that say what the search gave a trial."""
REPORT = ".report"
"""Ends the name of the file of leaderboard and figures."""

LOG_MEL = "Both views, side by side, in log-mel bands: time runs to the right, low bands are at the bottom."


# --- tags -------------------------------------------------------------------------------------------------------------


def chosen(column: str) -> str:
    """Return TensorBoard's tag of a score of the row that has been chosen: `chosen/esc10/accuracy`."""
    return column.replace("probe", "chosen", 1)


def tag(column: str, first: Collection[str]) -> str:
    """TensorBoard's tag of a row's column: `train/loss`, `probe/esc10/accuracy`, `probe-details/esc10/fold_1`.

    Args:
        column: of a row.
        first: the columns that are the first metric of a task.
    """
    if column in USAGE:
        return f"usage/{column.replace('/', '_')}"
    if column.startswith("probe/") and column not in first:
        return column.replace("probe", "probe-details", 1)
    return column if "/" in column else f"train/{column}"


# --- a run of TensorBoard ---------------------------------------------------------------------------------------------


class Curves:
    """A file of a run of TensorBoard's.

    Args:
        folder: the run's.
        ending: of the file's name.
    """

    def __init__(self, folder: Path, ending: str = "") -> None:
        self.file = EventFileWriter(str(folder), filename_suffix=ending)
        self.told: set[str] = set()

    def add(self, values: Iterable[Summary.Value], step: int = 0) -> None:
        self.file.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def scalars(self, values: Mapping[str, float], step: int, told: Mapping[str, str]) -> None:
        """A point of each curve.

        Args:
            values: tag -> value.
            step: where.
            told: tag -> what it is, in Markdown; kept with its first point.
        """
        self.add(
            (
                Summary.Value(tag=name, simple_value=value, metadata=self._metadata(name, told.get(name, "")))
                for name, value in values.items()
            ),
            step,
        )

    def _metadata(self, name: str, told: str) -> SummaryMetadata | None:
        if name in self.told:
            return None
        self.told.add(name)
        return SummaryMetadata(summary_description=told, plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))

    def forget_after(self, step: int) -> None:
        """Points after `step` that the run has so far are no part of it any more."""
        self.file.add_event(
            Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
        )

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


# --- a trial ----------------------------------------------------------------------------------------------------------


class Trial:
    """The run of one trial.

    Args:
        folder: the trial's.
    """

    def __init__(self, folder: Path) -> None:
        self.curves = Curves(folder)
        self.points = JsonlFollower(folder / STEPS, at_end=True)

    def steps(self) -> None:
        """Take up what the train worker has written since."""
        points = self.points.take()
        for point in points:
            if "goes_on_from" in point:
                self.curves.forget_after(point["goes_on_from"])
                continue
            step = point.pop("step")
            tags = {name: tag(name, ()).replace("/", "-steps/", 1) for name in point}
            told = {tags[name]: about(name) for name in point}
            self.curves.scalars({tags[name]: value for name, value in point.items()}, step, told)
        if points:
            self.curves.flush()

    def row(self, row: Row, picked: Row | None = None, metric: str = "") -> None:
        """Show a row's numbers, and the scores of the row that has been chosen so far, at the row's step.

        Args:
            row: the newest.
            picked: that which is chosen; None: none yet.
            metric: by which.
        """
        found, first = numbers(row), firsts(row)
        tags = {name: tag(name, first) for name in found}
        told = {tags[name]: about(name) for name in found}
        self.curves.scalars({tags[name]: value for name, value in found.items()}, row["step"], told)
        if picked is not None:
            scores = {chosen(name): value for name, value in numbers(picked).items() if name in firsts(picked)}
            why = dict.fromkeys(scores, f"That of the row which is best by `{metric}` so far.")
            self.curves.scalars(scores, row["step"], why)
        self.curves.flush()

    def sounds(self, experiment: "Experiment", count: int = 4) -> None:
        """The first pairs of the stream: both views, augmented, to listen to and as log-mel spectrograms."""
        import torch
        from matplotlib import colormaps

        from doppel_ray.data.frontends import FrontendConfig
        from doppel_ray.data.pairs import PairMaker

        plain = experiment.plain()
        plain["synth"]["compile"] = False  # for so few
        sample_rate = experiment.synth.sample_rate
        maker, frontend = PairMaker.of(plain), FrontendConfig().build(sample_rate) if sample_rate >= 15000 else None
        indices = torch.arange(count)
        sounds, *_ = maker.sounds(indices)
        views = maker.augment.both(sounds, experiment.pairs.drawn(indices))
        low, high = -4.6, 3.0  # silence, and as loud as a band gets
        for pair in range(count):
            if frontend is not None:  # which needs the 7500 Hz that it has bands for
                pictures = ((frontend(views[:, pair]).squeeze(1) - low) / (high - low)).clamp(0.0, 1.0)
                side_by_side = torch.cat(list(torch.nn.functional.pad(pictures, (0, 0, 0, 2))), dim=0).T.flip(0)
                picture = colormaps["magma"](side_by_side.numpy())[..., :3]
                self._show(summary.image(f"sounds/pair_{pair}_log_mel", picture, dataformats="HWC"), LOG_MEL)
            for view, name in enumerate("ab"):
                sound = views[view, pair] / views[view, pair].abs().amax().clamp(min=1.0)
                heard = summary.audio(f"sounds/pair_{pair}_view_{name}", sound.unsqueeze(0), sample_rate)
                self._show(heard, f"Pair {pair} of the stream, one of its two views, augmented as in training.")
        self.curves.flush()

    def _show(self, made: Summary, told: str) -> None:
        for value in made.value:
            value.metadata.summary_description = told
            value.metadata.plugin_data.plugin_name = "images" if value.HasField("image") else "audio"
        self.curves.add(made.value)

    def close(self) -> None:
        self.steps()
        self.curves.close()


# --- the sweep --------------------------------------------------------------------------------------------------------


class Sweep:
    """The run of the sweep, and what the search gave each trial; the driver's.

    Args:
        folder: the sweep's.
        experiment: what is swept.
    """

    def __init__(self, folder: Path, experiment: "Experiment") -> None:
        self.folder, self.trials = folder, folder / "trials"
        search = searched(experiment)
        self.texts = {key for key, space in search.items() if not _numeric(space)}
        self.curves = Curves(self.trials / SWEEP)
        self.curves.forget_after(_ended(reader.read(folder), reader.ENDED))
        rate = experiment.synth.sample_rate
        asked = {task.name: task.spec(rate).metrics[0] for task in experiment.probes.build()}
        first = {f"probe/{task}/{metric}": task for task, metric in asked.items()}
        tune = experiment.tune
        chosen_row = f"`{reported(tune.metric)}` of the row that is best by `{tune.metric}`"
        self.told = {
            "all_trials/best": f"{chosen_row} so far, against the number of trials that have ended.",
            "all_trials/each": f"{chosen_row} in each trial, in the order in which they ended.",
        }
        if search:
            scores = (
                name for test in dict.fromkeys((reported(tune.metric), *first)) for name in (test, f"{test}{VALID}")
            )
            judged = [*(chosen(name) for name in scores if name.startswith("probe/")), "train/loss"]
            self.curves.add([_plugin(metadata.EXPERIMENT_TAG, experiment=_space(search, judged))])
        self.curves.add(summary.custom_scalars(_layout(first)).value)
        self.curves.flush()

    def begin(self, trial: str, values: Mapping[str, Any]) -> None:
        """A trial starts, or goes on, with these values."""
        _forget(self.trials / trial, HPARAMS)
        start = SessionStartInfo(start_time_secs=time.time())
        for key, value in values.items():
            if key in self.texts:
                start.hparams[key].string_value = label(value)
            else:
                start.hparams[key].number_value = value
        _write(self.trials / trial, HPARAMS, [_plugin(metadata.SESSION_START_INFO_TAG, session_start_info=start)])

    def end(self, trial: str, succeeded: bool) -> None:
        """A trial has ended."""
        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=time.time())
        _write(self.trials / trial, HPARAMS, [_plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end)])
        run = reader.read(self.folder)
        picked = {entry.name: row for entry in run.trials if (row := entry.best(run.metric, run.mode))}
        if trial in picked:
            of_all = best(picked.values(), run.metric, run.mode) or {}
            shown = {"all_trials/best": of_all, "all_trials/each": picked[trial]}
            points = {name: row[reported(run.metric)] for name, row in shown.items()}
            self.curves.scalars(points, _ended(run), self.told)
            self.curves.flush()

    def close(self) -> None:
        self.curves.close()


def conclude(folder: Path) -> None:
    """Show a sweep's leaderboard and figures, as they are in its folder, in the sweep's run, in place of older ones."""
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
    """A terminal's table in Markdown."""
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    lines = [[str(column.header) for column in table.columns], ["---"] * len(cells), *zip(*cells, strict=True)]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _ended(run: reader.Run, statuses: Collection[str] = reader.OVER) -> int:
    return sum(trial.status in statuses for trial in run.trials)


def _write(folder: Path, ending: str, values: Iterable[Summary.Value], step: int = 0) -> None:
    """A file of their own for some values."""
    curves = Curves(folder, ending)
    curves.add(values, step)
    curves.close()


def _forget(folder: Path, ending: str) -> None:
    """Remove what `_write` wrote before."""
    for file in folder.glob(f"events.out.tfevents.*{ending}"):
        file.unlink()


def _plugin(name: str, **data: Any) -> Summary.Value:
    """What the HParams tab reads."""
    about = metadata.create_summary_metadata(HParamsPluginData(**data))
    return Summary.Value(tag=name, metadata=about, tensor=metadata.NULL_TENSOR)


def _numeric(space: Space) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in space.examples())


def _space(search: Mapping[str, Space], judged: Iterable[str]) -> api_pb2.Experiment:
    """Columns of the HParams tab: the searched keys, and the tags that trials are judged by."""
    kinds = {True: api_pb2.DATA_TYPE_FLOAT64, False: api_pb2.DATA_TYPE_STRING}
    return api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=key, type=kinds[_numeric(space)]) for key, space in search.items()],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name), display_name=name.removeprefix("probe/"))
            for name in judged
        ],
    )


def _layout(first: Mapping[str, str]) -> dict[str, dict[str, list[Any]]]:
    """The Custom Scalars tab.

    Args:
        first: the first metric of each task, a column, and the task's name.
    """
    scores: dict[str, list[Any]] = {}
    for column, task in first.items():
        low, high, mel, untrained = (tag(f"{column}_{ending}", first) for ending in BESIDE)
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
