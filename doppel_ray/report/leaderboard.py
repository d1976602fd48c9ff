"""The leaderboard for a terminal, and the tables of the CSV files."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from doppel_ray.config.variants import SEED
from doppel_ray.core.score_names import VALID
from doppel_ray.report.study import BASELINES, Score, Setting, Study, title

COSTS = ("train_seconds", "probe/seconds", "energy_joules")
"""Columns of a trial's cost, which is their sum over its rows."""


def show(value: Any) -> str:
    """Format a value for a table."""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def show_score(score: Score | None) -> str:
    """Return `0.574`, or over seeds `0.574 ± 0.012`."""
    if score is None or score.high is None or score.over != "seeds":
        return show(score and score.mean)
    return f"{score.mean:.3f} ± {score.high - score.mean:.3f}"


def entry(study: Study, setting: Setting) -> dict[str, Any]:
    """Return a setting's row of `leaderboard.csv`: values, scores, baselines, cost, best checkpoint."""
    champion = setting.champion
    best = setting.best(champion) or (champion.rows[-1] if champion.rows else {})
    found: dict[str, Any] = {"trial": champion.name, **setting.values, "seeds": setting.seeds, "status": setting.status}
    found |= {name: latest(setting, column) for name, column in (("epochs", "epoch"), ("pairs", "pairs"))}
    found["best_epoch"] = best.get("epoch")
    for name in study.scores:
        score = setting.score(name)
        found[name] = score and score.mean
        if (valid := setting.score(f"{name}{VALID}")) is not None:
            found[f"{name}{VALID}"] = valid.mean
        if score and score.over:
            found |= {f"{name}_low": score.low, f"{name}_high": score.high, f"{name}_interval_over": score.over}
        for which in BASELINES:
            if (value := setting.baseline(name, which)) is not None:
                found[f"{name}_{which}"] = value
        if (gain := setting.gain(name)) is not None:
            found[f"{name}_gain"] = gain
        found[f"{name}_at_end"] = setting.last(name)
    found["loss"] = setting.last("loss")
    found |= {name: cost for name in COSTS if (cost := setting.cost(name)) is not None}
    found["checkpoint"] = champion.checkpoint(best)
    return found


def latest(setting: Setting, column: str) -> float:
    """Return the mean over a setting's trials of a counting column (epoch, pairs) in their last rows."""
    found = setting.mean(lambda trial: (trial.rows[-1] if trial.rows else {}).get(column, 0)) or 0
    return int(found) if found == int(found) else found


def settings_table(study: Study) -> list[dict[str, Any]]:
    """Return the rows of `leaderboard.csv`, best first."""
    return [{"rank": rank, **entry(study, setting)} for rank, setting in enumerate(study.settings, start=1)]


def singles(setting: Setting) -> list[Setting]:
    """Return each repeat as a setting of its own."""
    return [replace(setting, repeats=(repeat,)) for repeat in setting.repeats]


def trials_table(study: Study) -> list[dict[str, Any]]:
    """Return the rows of `trials.csv`: each trial in the leaderboard's order, with the command to retrain it."""
    return [
        {"rank": rank, **entry(study, one), SEED: seed, "command": trial.command(run.name)}
        for rank, setting in enumerate(study.settings, start=1)
        for one in singles(setting)
        for run, trial, seed in one.repeats
    ]


def rows_table(study: Study) -> list[dict[str, Any]]:
    """Return the rows of `rows.csv`: every row of every trial."""
    return [
        {"trial": trial.name, **setting.values, SEED: seed, "status": trial.status, **trial.values_at(row), **row}
        for setting in study.settings
        for _, trial, seed in setting.repeats
        for row in trial.rows
    ]


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows, which may differ in their columns, with lists and mappings as JSON; return the file."""
    rows = [
        {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()}
        for row in rows
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return file


def table(study: Study) -> Table:
    """Return the leaderboard for a terminal: the validation score, which gives the order, and test scores.

    The last rows show the baselines; `gain` is the distance of the test score to the better of them.
    """
    gains = [setting.gain(study.reported) for setting in study.settings]
    gain_column = ["gain"] if any(gain is not None for gain in gains) else []
    scores = [name for name in study.scores if name != "loss"]
    keys = study.keys or ("setting",)
    seeds = ["seeds"] if study.has_repeats else []
    valid = ["validation"] if any(study.validation(setting) is not None for setting in study.settings) else []
    names = ", ".join(run.name for run in study.runs)
    found = Table(title=Text(f"{names}: best by {study.metric}", "table.title"), title_justify="left")
    for name in ("#", *keys, *seeds, *valid, *map(title, scores), *gain_column, "loss", "epochs", "pairs", "status"):
        found.add_column(Text(name), justify="left" if name in (*keys, "status") else "right")
    for rank, (setting, gain) in enumerate(zip(study.settings, gains, strict=True), start=1):
        judged_by_loss = setting.score("loss") if study.metric == "loss" else None
        cells = [
            rank,
            *([study.label(setting, key) for key in study.keys] or [study.title(setting)]),
            *([setting.seeds] if seeds else []),
            *([study.validation(setting)] if valid else []),
            *(show_score(setting.score(name)) for name in scores),
            *([gain] if gain_column else []),
            show_score(judged_by_loss) if judged_by_loss else setting.last("loss"),
            latest(setting, "epoch"),
            latest(setting, "pairs"),
            setting.status,
        ]
        found.add_row(*(Text(show(cell)) for cell in cells), style="bold" if rank == 1 else None)
    for which, what in BASELINES.items():
        levels = [study.baseline(name, which) for name in scores]
        if any(level is not None for level in levels):
            blank = [""] * (len(keys) - 1 + len(seeds) + len(valid))
            found.add_row("", what, *blank, *map(show, levels), *[""] * (3 + len(gain_column)), "baseline", style="dim")
    return found
