"""The tables of the page, as cells that the template turns into HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doppel_ray.config.search import label
from doppel_ray.core import dotted_keys
from doppel_ray.report.leaderboard import latest, show, singles
from doppel_ray.report.study import BASELINES, Score, Setting, Study, short, title
from doppel_ray.runs.metrics_log import number

MOST_ROWS = 40
"""Rows of a table on the page; the rest is in its CSV."""
FOREST_WIDTH, FOREST_MARGIN = 120.0, 6.0
"""Width and inner margin of the leaderboard's pictures, in pixels."""
FOREST_DASHES = {"untrained": "4 2", "mel": "1 2"}
"""Baseline -> dashes of its line in the leaderboard's pictures."""
PICTURE = "95 %"
"""Heading of the column with the leaderboard's pictures."""


@dataclass(frozen=True)
class Forest:
    """A picture of a score with its interval and baselines; places in pixels, on an axis that all rows share."""

    about: str
    mean: float
    low: float | None
    high: float | None
    levels: list[tuple[float, str]]
    width: float = FOREST_WIDTH


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        small: second line, in grey.
        mood: "up", "down" or empty.
        forest: a picture in place of the text.
        columns: number of columns that it spans.
    """

    text: str = ""
    small: str = ""
    mood: str = ""
    forest: Forest | None = None
    columns: int = 1


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are aligned right."""

    name: str
    number: bool = True


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        kind: "first", "baseline" or empty.
    """

    cells: list[Cell]
    kind: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table, and the number of rows that it leaves out."""

    columns: list[Column]
    rows: list[TableRow]
    left_out: int = 0


def duration(seconds: float) -> str:
    """Return `82 s`, `10 min` or `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def interval(score: Score | None) -> str:
    """Return `0.594 to 0.743`; empty without an interval."""
    if score is None or score.low is None or score.high is None:
        return ""
    return f"{score.low:.3f} to {score.high:.3f}"


# --- the leaderboard --------------------------------------------------------------------------------------------------


def leaderboard(study: Study) -> PageTable:
    """Return a row for each setting, best first, and the baselines."""
    columns = _leaderboard_columns(study)
    names, axis = [column.name for column in columns], _Axis(study)
    rows = [
        TableRow(_leaderboard_cells(study, setting, rank, names, axis), "first" if rank == 1 else "")
        for rank, setting in enumerate(study.settings, start=1)
    ]
    shown = rows[:MOST_ROWS]
    for which, what in BASELINES.items():
        levels = [study.baseline(name, which) for name in study.scores]
        if any(level is not None for level in levels):
            before = names.index(PICTURE)
            values = [Cell("" if level is None else show(level)) for level in levels]
            after = [Cell() for _ in columns[before + 1 + len(levels) :]]
            shown.append(TableRow([Cell(), Cell(what, columns=before), *values, *after], "baseline"))
    return PageTable(columns, shown, max(0, len(rows) - MOST_ROWS))


def _leaderboard_columns(study: Study) -> list[Column]:
    settings = study.settings
    return [
        Column("#"),
        *(Column(short(key), number=False) for key in study.keys or ("setting",)),
        *([Column("seeds")] if study.has_repeats else []),
        *([Column("validation")] if any(study.validation(setting) is not None for setting in settings) else []),
        Column(PICTURE, number=False),
        *(Column(title(name)) for name in study.scores),
        *([Column("gain")] if any(setting.gain(study.reported) is not None for setting in settings) else []),
        Column("final"),
        Column("pairs"),
        Column("training"),
        *([Column("energy")] if any(setting.cost("energy_joules") for setting in settings) else []),
        Column("status", number=False),
    ]


def _leaderboard_cells(study: Study, setting: Setting, rank: int, names: Sequence[str], axis: "_Axis") -> list[Cell]:
    return [
        Cell(str(rank)),
        *([Cell(study.label(setting, key)) for key in study.keys] or [Cell(study.title(setting))]),
        *([Cell(str(setting.seeds))] if "seeds" in names else []),
        *([Cell(show(study.validation(setting)))] if "validation" in names else []),
        axis.cell(setting),
        *(_score(setting, name) for name in study.scores),
        *([_gain(setting.gain(study.reported))] if "gain" in names else []),
        Cell(show(setting.last(study.reported))),
        Cell(show(latest(setting, "pairs"))),
        _seconds(setting.cost("train_seconds")),
        *([_energy(setting.cost("energy_joules"))] if "energy" in names else []),
        Cell(setting.status),
    ]


class _Axis:
    """The axis of the leaderboard's pictures: it spans all intervals and baselines of the rows on the page."""

    def __init__(self, study: Study) -> None:
        self.study = study
        ends = [end for setting in study.settings[:MOST_ROWS] for end in self._ends(setting)]
        self.low, self.high = (min(ends), max(ends)) if ends else (0.0, 1.0)

    def _ends(self, setting: Setting) -> list[float]:
        score = setting.score(self.study.reported)
        levels = [setting.baseline(self.study.reported, which) for which in BASELINES]
        found = [score.mean, score.low, score.high, *levels] if score else levels
        return [value for value in found if value is not None]

    def _x(self, value: float | None) -> float | None:
        if value is None:
            return None
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(FOREST_MARGIN + share * (FOREST_WIDTH - 2 * FOREST_MARGIN), 1)

    def cell(self, setting: Setting) -> Cell:
        """Return a setting's picture; an empty cell without a score."""
        score = setting.score(self.study.reported)
        mean = self._x(score.mean) if score else None
        if score is None or mean is None:
            return Cell()
        levels = [
            (x, dashes)
            for which, dashes in FOREST_DASHES.items()
            if (x := self._x(setting.baseline(self.study.reported, which))) is not None
        ]
        about = f"{show(score.mean)} {interval(score)}".strip()
        return Cell(forest=Forest(about, mean, self._x(score.low), self._x(score.high), levels))


def _score(setting: Setting, name: str) -> Cell:
    score = setting.score(name)
    return Cell(show(score and score.mean), interval(score))


def _gain(gain: float | None) -> Cell:
    if gain is None:
        return Cell("–")
    return Cell(f"{gain:+.3f}".replace("-", "−"), mood="up" if gain > 0 else "down" if gain < 0 else "")


def _seconds(seconds: float | None) -> Cell:
    return Cell("–" if seconds is None else duration(seconds))


def _energy(joules: float | None) -> Cell:
    return Cell("–" if joules is None else f"{joules / 1000:.1f} kJ")


# --- the trials -------------------------------------------------------------------------------------------------------


def trials(study: Study) -> PageTable:
    """Return a row for each trial, in the order of the leaderboard."""
    valid = any(study.validation(setting) is not None for setting in study.settings)
    columns = [
        Column("#"),
        Column("trial", number=False),
        Column("seed"),
        *([Column("validation")] if valid else []),
        *(Column(name) for score in study.scores for name in (title(score), "final")),
        Column("best epoch"),
        Column("epochs"),
        Column("pairs/s"),
        Column("training"),
        Column("probes"),
        Column("status", number=False),
    ]
    rows = [
        TableRow([Cell(str(rank)), *_trial_cells(study, single, valid)])
        for rank, setting in enumerate(study.settings, start=1)
        for single in singles(setting)
    ]
    return PageTable(columns, rows[:MOST_ROWS], max(0, len(rows) - MOST_ROWS))


def _trial_cells(study: Study, single: Setting, valid: bool) -> list[Cell]:
    """Return the cells of a setting that is one trial."""
    ((run, trial, seed),) = single.repeats
    scores: list[Cell] = []
    for name in study.scores:
        scores += [_score(single, name), Cell(show(single.last(name)))]
    return [
        Cell(trial.name, run.name if len(study.runs) > 1 else ""),
        Cell("–" if seed is None else str(seed)),
        *([Cell(show(study.validation(single)))] if valid else []),
        *scores,
        Cell(show((single.best(trial) or {}).get("epoch"))),
        Cell(show(latest(single, "epoch"))),
        Cell(show(_mean(trial.rows, "pairs_per_second"))),
        _seconds(trial.total("train_seconds")),
        _seconds(_sum(trial.rows, "probe/seconds")),
        Cell(trial.status),
    ]


def _known(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    return [value for row in rows if (value := number(row.get(column))) is not None]


def _sum(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    return sum(found) if (found := _known(rows, column)) else None


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> int | None:
    return round(sum(found) / len(found)) if (found := _known(rows, column)) else None


# --- settings of runs -------------------------------------------------------------------------------------------------


def differences(study: Study) -> PageTable | None:
    """Return the keys that differ between the runs' experiments; None for a single run."""
    if len(study.runs) == 1:
        return None
    keys = dict.fromkeys(key for run in study.runs for key in dotted_keys.flatten(run.experiment))
    rows = []
    for key in keys:
        values = [dotted_keys.lookup(run.experiment, key) for run in study.runs]
        is_branch = all(isinstance(value, dict) for value in values) and not key.startswith("search.")
        if not is_branch and key not in ("run.name", "run.dir") and any(value != values[0] for value in values):
            rows.append(TableRow([Cell(key), *(_value(value) for value in values)]))
    return PageTable([Column(name, number=False) for name in ("key", *(run.name for run in study.runs))], rows)


def scaled_down(changes: Mapping[str, tuple[Any, Any]]) -> PageTable:
    """Return what `--scale small` changed."""
    columns = [Column(name, number=False) for name in ("key", "full", "small")]
    rows = [TableRow([Cell(key), _value(full), _value(small)]) for key, (full, small) in changes.items()]
    return PageTable(columns, rows)


def _value(value: Any) -> Cell:
    return Cell("–" if value is None else label(value))
