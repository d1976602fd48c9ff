"""A sweep's folder into a leaderboard and figures; `python -m doppel_ray.report`."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from doppel_ray import command
from doppel_ray.rows import read_rows
from doppel_ray.search import label
from doppel_ray.section import ConfigError

RUN = "run.json"
TRIALS = "trials.json"


@dataclass(frozen=True)
class Trial:
    """One trial as its folder tells it.

    Attributes:
        name: its folder's name.
        values: what the search gave it; with population-based training those that are in force.
        point: what it began with.
        status: "running", "finished", "stopped early", "failed" or "interrupted".
        rows: one per reported checkpoint, oldest first.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    point: dict[str, Any]
    status: str
    rows: list[dict[str, Any]]

    def best(self, metric: str, mode: str) -> dict[str, Any] | None:
        """The row that is best by `metric`; None if no row has it."""
        having = [row for row in self.rows if isinstance(row.get(metric), int | float) and math.isfinite(row[metric])]
        return (max if mode == "max" else min)(having, key=lambda row: row[metric], default=None)


@dataclass(frozen=True)
class Run:
    """A sweep's folder."""

    folder: Path
    about: dict[str, Any]
    trials: list[Trial]

    @property
    def metric(self) -> str:
        return self.about["experiment"]["tune"]["metric"]

    @property
    def mode(self) -> str:
        return self.about["experiment"]["tune"]["mode"]

    def ranked(self) -> list[Trial]:
        """Trials, best first; those without the metric last."""

        def key(trial: Trial) -> float:
            row = trial.best(self.metric, self.mode)
            if row is None:
                return math.inf
            return -row[self.metric] if self.mode == "max" else row[self.metric]

        return sorted(self.trials, key=key)

    @property
    def scores(self) -> list[str]:
        """Columns of the leaderboard: the metric first, then the first metric of every other task."""
        names: dict[str, None] = {self.metric: None}
        for trial in self.trials:
            for row in trial.rows:
                for name in row:
                    if name.startswith("probe/") and name.endswith("_untrained"):  # only the first metric has baselines
                        names[name.removesuffix("_untrained")] = None
        return list(names)


def read(folder: Path) -> Run:
    """Read a sweep's folder.

    Raises:
        ConfigError: it is not one, or is damaged; the message names what is missing.
    """
    try:
        about = json.loads((folder / RUN).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no run: {RUN} is missing") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{folder / RUN} is damaged: {error}") from None
    try:
        known = json.loads((folder / TRIALS).read_text())
    except FileNotFoundError:
        known = []
    except json.JSONDecodeError as error:
        raise ConfigError(f"{folder / TRIALS} is damaged: {error}") from None
    trials = [
        Trial(
            entry["name"],
            folder / "trials" / entry["name"],
            entry["values"],
            entry.get("point", entry["values"]),
            entry["status"],
            read_rows(folder / "trials" / entry["name"]),
        )
        for entry in known
    ]
    return Run(folder, about, trials)


BESIDE = ("low", "high", "mel", "untrained")
"""What stands in a row beside a task's first metric: its interval, and the baselines."""


# --- the leaderboard --------------------------------------------------------------------------------------------------


def leaderboard_rows(run: Run) -> list[dict[str, Any]]:
    """One dictionary per trial, best first: its values, its best row's scores beside the baselines, and its cost."""
    table = []
    for rank, trial in enumerate(run.ranked(), start=1):
        best = trial.best(run.metric, run.mode) or (trial.rows[-1] if trial.rows else {})
        last = trial.rows[-1] if trial.rows else {}
        entry: dict[str, Any] = {"rank": rank, "trial": trial.name, **trial.values, "status": trial.status}
        entry |= {"epochs": last.get("epoch", 0), "pairs": last.get("pairs", 0), "best_epoch": best.get("epoch")}
        for score in run.scores:
            entry[score] = best.get(score)
            beside = {which: best[f"{score}_{which}"] for which in BESIDE if f"{score}_{which}" in best}
            entry |= {f"{score}_{which}": value for which, value in beside.items()}
            reached, *rest = (best.get(score), beside.get("mel"), beside.get("untrained"))
            if isinstance(reached, int | float) and all(isinstance(value, int | float) for value in rest):
                entry[f"{score}_gain"] = reached - max(value for value in rest if value is not None)
        entry["loss"] = last.get("loss")
        entry["checkpoint"] = best.get("checkpoint")
        table.append(entry)
    return table


def write_leaderboard(run: Run) -> Path:
    """Write `leaderboard.csv`; returns its path."""
    rows = leaderboard_rows(run)
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = run.folder / "leaderboard.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        writer.writerows(rows)
    return file


def show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def leaderboard_table(run: Run) -> Table:
    """The leaderboard for a terminal; two last rows show the baselines, `gain` what the metric is above the better."""
    rows = leaderboard_rows(run)
    values = list(dict.fromkeys(name for trial in run.trials for name in trial.values))
    gain = run.metric.startswith("probe/")  # there are baselines
    table = Table(title=f"{run.folder.name}: best by {run.metric}", title_justify="left")
    for name in (
        "#",
        *values,
        *(score.removeprefix("probe/") for score in run.scores),
        *(["gain"] if gain else []),
        "loss",
        "epochs",
        "pairs",
        "status",
    ):
        table.add_column(name, justify="left" if name in (*values, "status") else "right")
    for row in rows:
        cells = [
            row["rank"],
            *(label(row.get(v)) for v in values),
            *(row[s] for s in run.scores),
            *([row.get(f"{run.metric}_gain")] if gain else []),
            row["loss"],
            row["epochs"],
            row["pairs"],
            row["status"],
        ]
        table.add_row(*map(show, cells), style="bold" if row["rank"] == 1 else None)
    for which, name in (("untrained", "same encoder, untrained"), ("mel", "mel statistics")):
        found = [
            next((row[f"{s}_{which}"] for row in rows if row.get(f"{s}_{which}") is not None), None) for s in run.scores
        ]
        if any(value is not None for value in found):
            labels = [name, *[""] * (len(values) - 1)] if values else []
            table.add_row("", *labels, *map(show, found), *[""] * (3 + gain), "baseline", style="dim")
    return table


# --- figures ----------------------------------------------------------------------------------------------------------

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_scores(run: Run) -> list[Path]:
    """Score against each searched number, a panel for each task, with the baselines as lines; returns the pictures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in leaderboard_rows(run) if row[run.metric] is not None]
    pictures = []
    for key in dict.fromkeys(name for trial in run.trials for name in trial.values):
        numeric = key != "run.seed" and all(isinstance(row.get(key), int | float) for row in rows)
        if not rows or not numeric:
            continue
        figure, axes = plt.subplots(
            1, len(run.scores), figsize=(4.6 * len(run.scores), 3.6), squeeze=False, layout="constrained"
        )
        for axis, score in zip(axes[0], run.scores, strict=True):
            _panel(axis, run, rows, key, score)
        file = run.folder / f"score_against_{key.rpartition('.')[2]}.png"
        figure.savefig(file, dpi=150)
        plt.close(figure)
        pictures.append(file)
    return pictures


def _panel(axis: Any, run: Run, rows: list[dict[str, Any]], key: str, score: str) -> None:
    points = sorted(
        (row[key], row[score], row["status"])
        for row in rows
        if isinstance(row[score], int | float) and math.isfinite(row[score])
    )
    whole = [(x, y) for x, y, status in points if status != "stopped early"]
    early = [(x, y) for x, y, status in points if status == "stopped early"]
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], color=COLOURS[0], linewidth=1, zorder=1)
    spans = [(row[key], row[f"{score}_low"], row[f"{score}_high"]) for row in rows if f"{score}_low" in row]
    if spans:  # the bootstrap interval over test examples
        axis.vlines(*zip(*spans, strict=True), color=COLOURS[0], linewidth=1, alpha=0.5, zorder=1)
    if whole:
        axis.scatter(*zip(*whole, strict=True), color=COLOURS[0], zorder=2, label="trained to the end")
    if early:
        axis.scatter(
            *zip(*early, strict=True), facecolors="white", edgecolors=COLOURS[0], zorder=2, label="stopped early"
        )
    for which, name, colour, style in (
        ("untrained", "same encoder, untrained", COLOURS[1], "--"),
        ("mel", "mel statistics", COLOURS[2], ":"),
    ):
        level = next((row[f"{score}_{which}"] for row in rows if row.get(f"{score}_{which}") is not None), None)
        if level is not None:
            axis.axhline(level, color=colour, linestyle=style, label=name)
    xs = [x for x, _, _ in points]
    if xs and min(xs) > 0 and max(xs) / min(xs) >= 8:
        axis.set_xscale("log")
        axis.set_xticks(xs, [f"{x:g}" for x in xs])
        axis.minorticks_off()
    axis.set_xlabel("δ" if key == "pairs.delta" else key)
    axis.set_ylabel(score.removeprefix("probe/").replace("/", " "))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def plot_curves(run: Run) -> list[Path]:
    """Loss and scores of every trial along the way, a panel for each; returns the picture, if there is anything yet."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(["loss", *run.scores]))
    if not any(trial.rows for trial in run.trials):
        return []
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.6), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for number, trial in enumerate(run.trials):
            points = [(row["pairs"], row[name]) for row in trial.rows if isinstance(row.get(name), int | float)]
            if points:
                values = ", ".join(f"{key.rpartition('.')[2]} {label(value)}" for key, value in trial.values.items())
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(*zip(*points, strict=True), ".-", color=colour, linewidth=1, label=values or trial.name)
        for which, colour, style in (("untrained", "#000000", "--"), ("mel", "#000000", ":")):
            levels = [row[f"{name}_{which}"] for trial in run.trials for row in trial.rows if f"{name}_{which}" in row]
            if levels:
                axis.axhline(levels[0], color=colour, linestyle=style, linewidth=1, label=which)
        axis.set_xlabel("pairs")
        axis.set_ylabel(name.removeprefix("probe/").replace("/", " "))
        axis.grid(alpha=0.3)
        if len(run.trials) <= len(COLOURS):
            axis.legend(fontsize=7)
    file = run.folder / "curves.png"
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return [file]


# --- the end of a sweep -----------------------------------------------------------------------------------------------


def publish(folder: Path, console: Console) -> None:
    """Write and print what a sweep's folder has to say."""
    run = read(folder)
    console.print(leaderboard_table(run))
    if shrunk := run.about.get("shrunk"):
        changes = ", ".join(f"{key} {label(full)} → {label(small)}" for key, (full, small) in shrunk.items())
        console.print(f"scaled down (--scale small): {changes}")
    for file in (write_leaderboard(run), *plot_curves(run), *plot_scores(run)):
        console.print(f"wrote {file}")
    ranked = run.ranked()
    best = ranked[0].best(run.metric, run.mode) if ranked else None
    if best is None:
        console.print(f"no trial has reported {run.metric} yet")
    else:
        console.print(
            f"best: {ranked[0].name}, epoch {best['epoch']}: {run.metric} {best[run.metric]:.4f}\n"
            f"best checkpoint: {best['checkpoint']}",
        )
    console.print(f"watch: tensorboard --logdir {folder / 'trials'}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = command.Parser("report", "Leaderboard and figures of a sweep's folder, finished or not.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a sweep")
    args = parser.parse_args(argv)
    for folder in args.runs:
        publish(folder, command.screen())
    return 0


if __name__ == "__main__":
    command.run(main)
