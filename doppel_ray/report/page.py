"""The page: one HTML file that needs nothing else. Importing this loads jinja2, which escapes what a folder holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

import doppel_ray
from doppel_ray.config.search import label
from doppel_ray.config.variants import SEED
from doppel_ray.core import dotted_keys
from doppel_ray.core.score_names import VALID, reported
from doppel_ray.report.figures import Figure
from doppel_ray.report.leaderboard import latest, show, singles
from doppel_ray.report.study import BASELINES, Score, Setting, Study, chosen_on_test, short, title
from doppel_ray.runs.metrics_log import Row, checkpoint_name, number
from doppel_ray.runs.reader import Run, Trial

HERE = Path(__file__).parent
GENERATOR = "doppel_ray.report"
"""How the page's `generator` begins, by which a later report knows it for one of its own."""
MOST_ROWS = 40
"""Rows of a table; the rest is in its CSV."""
MOST_COMMANDS = 20
FOREST_WIDTH, FOREST_MARGIN = 120.0, 6.0
"""Of the pictures within the leaderboard, in pixels."""
FOREST_DASHES = {"untrained": "4 2", "mel": "1 2"}


@dataclass(frozen=True)
class Forest:
    """A score with its interval and the baselines on an axis that all rows share, in pixels."""

    about: str
    mean: float
    low: float | None
    high: float | None
    levels: list[tuple[float, str]]
    width: float = FOREST_WIDTH


@dataclass(frozen=True)
class Cell:
    """What stands in a table's cell.

    Attributes:
        small: below it, in grey.
        mood: "up", "down" or nothing.
        forest: a picture in its place.
        columns: how many it spans.
    """

    text: str = ""
    small: str = ""
    mood: str = ""
    forest: Forest | None = None
    columns: int = 1


@dataclass(frozen=True)
class Column:
    """A table's column; numbers stand to the right."""

    name: str
    number: bool = True


@dataclass(frozen=True)
class Line:
    """A table's row.

    Attributes:
        kind: "first", "baseline", or nothing.
    """

    cells: list[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Board:
    """A table, and how many rows it leaves out."""

    columns: list[Column]
    rows: list[Line]
    left_out: int = 0


@dataclass(frozen=True)
class Origin:
    """Where a run's numbers come from."""

    name: str
    command: str
    facts: list[tuple[str, str]]
    plan: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    shrunk: Board | None = None
    experiment: str = ""


def render(study: Study, figures: Sequence[Figure], files: Mapping[str, str]) -> str:
    """The page.

    Args:
        study: what it is about.
        figures: its figures.
        files: what lies beside it, name -> what that is; empty if the page stands alone.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    missing = [line for run in study.runs for line in run.missing]
    commands = list(_commands(study))
    sections = {
        "missing": missing and "What is missing",
        "leaderboard": study.settings and "Leaderboard",
        "figures": figures and "Figures",
        "trials": study.settings and "Trials",
        "again": commands and "Training again",
        "differences": len(study.runs) > 1 and "How the runs differ",
        "origin": "Origin",
        "files": files and "Files",
    }
    return environment.get_template("page.html").render(
        study=study,
        title=title,
        zip=zip,
        generator=f"{GENERATOR} {doppel_ray.__version__}",
        css=(HERE / "page.css").read_text(),
        facts=_facts(study),
        contents=[(anchor, name) for anchor, name in sections.items() if name],
        missing=missing,
        result=_result(study),
        leaderboard=_leaderboard(study),
        notes=_notes(study),
        figures=[
            (figure, figure.svg, [f"figures/{figure.name}.{kind}" for kind in ("svg", "png", "csv")] if files else [])
            for figure in figures
        ],
        trials=_trials(study),
        commands=commands[:MOST_COMMANDS],
        commands_left_out=max(0, len(commands) - MOST_COMMANDS),
        commits=_commits(study),
        population=any(run.is_population for run in study.runs),
        differences=_differences(study),
        origins=[_origin(run) for run in study.runs],
        files=files,
    )


# --- the head ---------------------------------------------------------------------------------------------------------


def _facts(study: Study) -> list[str]:
    """The page in a line."""
    statuses = [trial.status for setting in study.settings for trial in setting.trials]
    counted = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    facts = [f"{_many(len(statuses), 'trial')}{f' ({counted})' if counted else ''}"]
    if study.has_repeats:
        facts.append(_many(len(study.settings), "setting"))
    trials = [trial for setting in study.settings for trial in setting.trials]
    if pairs := sum(int(number(trial.rows[-1].get("pairs")) or 0) for trial in trials if trial.rows):
        facts.append(f"{pairs:,} pairs")
    if seconds := sum(trial.total("train_seconds") or 0.0 for trial in trials):
        facts.append(f"{_duration(seconds)} of training")
    facts += [str(run.about["time"]).partition("T")[0] for run in study.runs[:1] if "time" in run.about]
    return facts


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _interval(score: Score | None) -> str:
    if score is None or score.low is None or score.high is None:
        return ""
    return f"{score.low:.3f} to {score.high:.3f}"


def _result(study: Study) -> dict[str, str] | None:
    """What came out, for the head of the page."""
    if not study.settings or (score := study.settings[0].score(study.reported)) is None:
        return None
    first = study.settings[0]
    champion, row = first.champion, first.best(first.champion) or {}
    gain = ""
    if (found := first.gain(study.reported)) is not None:
        levels = [
            f"{what} {show(level)}"
            for which, what in BASELINES.items()
            if (level := first.baseline(study.reported, which)) is not None
        ]
        better = "above" if found >= 0 else "below"
        gain = f"{abs(found):.3f} {better} the better of its baselines ({', '.join(levels)})"
    return {
        "setting": study.title(first),
        "score": show(score.mean),
        "interval": f"{_interval(score)} (95 % over {_over(first, score)})" if score.over else "",
        "gain": gain,
        "chosen": f"{title(first.metric)} {show(row[first.metric])}" if first.metric != study.reported else "",
        "where": f"{champion.name}, epoch {row.get('epoch', '–')}: {_where(champion, row)}",
    }


def _where(trial: Trial, row: Row) -> str:
    """A row's checkpoint as the run's folder has it, wherever that lies: `trials/NAME/checkpoints/epoch_0003`."""
    kept = trial.checkpoint(row) is not None
    return f"trials/{trial.name}/{checkpoint_name(row)}" if kept else trial.no_checkpoint(row)


def _over(setting: Setting, score: Score) -> str:
    return f"{setting.seeds} seeds" if score.over == "seeds" else score.over


# --- the tables -------------------------------------------------------------------------------------------------------


def _leaderboard(study: Study) -> Board:
    """A row for each setting, best first, and the baselines."""
    scale = _Scale(study)
    keys = study.keys or ("",)
    gains = [setting.gain(study.reported) for setting in study.settings]
    valid = any(study.validation(setting) is not None for setting in study.settings)
    columns = [
        Column("#"),
        *(Column(short(key) if key else "setting", number=False) for key in keys),
        *([Column("seeds")] if study.has_repeats else []),
        *([Column("validation")] if valid else []),
        Column("", number=False),
        *(Column(title(name)) for name in study.scores),
        *([Column("gain")] if any(gain is not None for gain in gains) else []),
        Column("at the end"),
        Column("pairs"),
        Column("training"),
        *([Column("energy")] if any(setting.cost("energy_joules") for setting in study.settings) else []),
        Column("status", number=False),
    ]
    names = [column.name for column in columns]
    rows = []
    for rank, (setting, gain) in enumerate(zip(study.settings, gains, strict=True), start=1):
        cells = [
            Cell(str(rank)),
            *(Cell(study.label(setting, key) if key else study.title(setting)) for key in keys),
            *([Cell(str(setting.seeds))] if study.has_repeats else []),
            *([Cell(show(study.validation(setting)))] if valid else []),
            scale.cell(setting),
            *(Cell(show((score := setting.score(name)) and score.mean), _interval(score)) for name in study.scores),
            *([_gain(gain)] if "gain" in names else []),
            Cell(show(setting.last(study.reported))),
            Cell(show(latest(setting, "pairs"))),
            _seconds(setting.cost("train_seconds")),
            *([_energy(setting.cost("energy_joules"))] if "energy" in names else []),
            Cell(setting.status),
        ]
        rows.append(Line(cells, "first" if rank == 1 else ""))
    shown = rows[:MOST_ROWS]
    for which, what in BASELINES.items():
        levels = [study.baseline(name, which) for name in study.scores]
        if any(level is not None for level in levels):
            before = names.index("")
            told = [Cell("" if level is None else show(level)) for level in levels]
            after = [Cell() for _ in columns[before + 1 + len(levels) :]]
            shown.append(Line([Cell(), Cell(what, columns=before), *told, *after], "baseline"))
    return Board(columns, shown, len(rows) - len(rows[:MOST_ROWS]))


class _Scale:
    """The axis of the leaderboard's pictures: all intervals and baselines of the rows that are shown."""

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
        score = setting.score(self.study.reported)
        mean = self._x(score.mean) if score else None
        if score is None or mean is None:
            return Cell()
        levels = [
            (x, dashes)
            for which, dashes in FOREST_DASHES.items()
            if (x := self._x(setting.baseline(self.study.reported, which))) is not None
        ]
        about = f"{show(score.mean)} {_interval(score)}".strip()
        return Cell(forest=Forest(about, mean, self._x(score.low), self._x(score.high), levels))


def _gain(gain: float | None) -> Cell:
    if gain is None:
        return Cell("–")
    return Cell(f"{gain:+.3f}".replace("-", "−"), mood="up" if gain > 0 else "down" if gain < 0 else "")


def _seconds(seconds: float | None) -> Cell:
    return Cell("–" if seconds is None else _duration(seconds))


def _energy(joules: float | None) -> Cell:
    return Cell("–" if joules is None else f"{joules / 1000:.1f} kJ")


def _trials(study: Study) -> Board:
    """A row for each trial, in the order of the leaderboard."""
    valid = any(study.validation(setting) is not None for setting in study.settings)
    columns = [
        Column("#"),
        Column("trial", number=False),
        Column("seed"),
        *([Column("validation")] if valid else []),
        *(Column(name) for score in study.scores for name in (title(score), "at the end")),
        Column("best epoch"),
        Column("epochs"),
        Column("pairs/s"),
        Column("training"),
        Column("probes"),
        Column("status", number=False),
    ]
    rows = []
    for rank, setting in enumerate(study.settings, start=1):
        for single, (run, trial, seed) in zip(singles(setting), setting.repeats, strict=True):
            row = setting.best(trial) or {}
            cells = [
                Cell(str(rank)),
                Cell(trial.name, run.name if len(study.runs) > 1 else ""),
                Cell("–" if seed is None else str(seed)),
                *([Cell(show(study.validation(single)))] if valid else []),
            ]
            for name in study.scores:
                score = single.score(name)
                cells += [Cell(show(score and score.mean), _interval(score)), Cell(show(single.last(name)))]
            cells += [
                Cell(show(row.get("epoch"))),
                Cell(show(latest(single, "epoch"))),
                Cell(show(_mean(trial.rows, "pairs_per_second"))),
                _seconds(trial.total("train_seconds")),
                _seconds(_sum(trial.rows, "probe/seconds")),
                Cell(trial.status),
            ]
            rows.append(Line(cells))
    return Board(columns, rows[:MOST_ROWS], max(0, len(rows) - MOST_ROWS))


def _known(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    return [value for row in rows if (value := number(row.get(column))) is not None]


def _sum(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    return sum(found) if (found := _known(rows, column)) else None


def _mean(rows: Sequence[Mapping[str, Any]], column: str) -> int | None:
    return round(sum(found) / len(found)) if (found := _known(rows, column)) else None


def _notes(study: Study) -> list[str]:
    """How to read the tables."""
    notes = [f"Warning ({run.name}): {line}." for run in study.runs for line in run.warnings]
    notes += [
        f"Each trial counts with its best row by {study.metric}, which also gives the order. All scores of a line come "
        "from that row; “at the end” is the score of the last row that has one."
    ]
    if study.metric.endswith(VALID):
        notes.append(
            "Validation scores choose, and test scores are reported. A test example is in no fit that it is asked "
            "about. In cross-validation over all folds each clip is tested in one split and validates another; with "
            "probes.test_folds of one fold, nothing that is chosen has seen a label of that fold."
        )
    if study.chosen_on_test:
        notes.append(f"{chosen_on_test(study.chosen_on_test)}.")
    over = {
        score.over for setting in study.settings for each in study.scores if (score := setting.score(each)) is not None
    }
    if "seeds" in over:
        notes.append(
            "Trials that differ only in their seed are repeats of one setting: its score is their mean, with the 95 % "
            "interval of Student’s t over the seeds. It says how another training would come out."
        )
    if "test examples" in over:
        notes.append(
            "The interval of a single trial is the 95 % bootstrap interval over test examples. It says how the same "
            "checkpoint would do on other recordings, and nothing about other seeds."
        )
    if study.baseline(study.reported, "untrained") is not None:
        notes.append(
            "Gain is over the better baseline, on the same splits. In the pictures the dashed line is the same encoder "
            "untrained, the dotted one mel statistics."
        )
        notes.append(_untrained(study))
    if any(setting.cost("energy_joules") for setting in study.settings):
        notes.append(
            "Energy is what the counters of the first train worker’s whole machine (processors, and GPUs where they "
            "can be read) told during the epochs: everything that ran there is in it, trials side by side each count "
            "all of it, and other machines are not in it."
        )
    if len(study.runs) > 1:
        others = {(reported(run.metric), run.mode) for run in study.runs} - {(study.reported, study.mode)}
        if others:
            notes.append(
                f"All runs are judged by {study.reported}, as the first is; some were steered by another metric."
            )
    return notes


def _untrained(study: Study) -> str:
    """Which batch-norm statistics the untrained baseline has."""
    rows = [row for setting in study.settings for trial in setting.trials for row in trial.rows]
    beside = [row for row in rows if any(name.endswith("_untrained") for name in row)]
    pairs = {row.get("probe/untrained_pairs") for row in beside}
    told = {
        f"batch-norm statistics of {count:.0f} of its run’s pairs, as a trained one has"
        if count is not None
        else "batch norms at mean 0 and variance 1, as older versions had it, which makes it score differently"
        for count in pairs
    }
    return f"The untrained encoder has {'; in other rows it has '.join(sorted(told))}."


# --- where it comes from ----------------------------------------------------------------------------------------------


def _commands(study: Study) -> Iterator[tuple[str, str]]:
    for setting in study.settings:
        for run, trial, _ in setting.repeats:
            if (command := trial.command(run.name)) is not None:
                yield trial.name if len(study.runs) == 1 else f"{run.name}: {trial.name}", command


def _commits(study: Study) -> list[tuple[str, str, bool]]:
    """Of each run that knows it: (run, commit, whether the code had changes beside)."""
    return [
        (run.name, str(commit).partition("+")[0], "+" in str(commit))
        for run in study.runs
        if (commit := run.about.get("commit"))
    ]


def _origin(run: Run) -> Origin:
    machine = run.about.get("machine") or {}
    versions = run.about.get("versions") or {}
    facts = [
        ("folder", str(run.folder)),
        ("begun", str(run.about.get("time", "–")).replace("T", " ")),
        ("commit", str(run.about.get("commit") or "–")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "–"),
        ("machine", ", ".join(f"{name}: {value}" for name, value in machine.items()) or "–"),
        ("seed", str(dotted_keys.lookup(run.experiment, SEED))),
        ("chosen by", f"{run.metric} ({run.mode})"),
    ]
    shrunk = None
    if changes := run.about.get("shrunk"):
        columns = [Column(name, number=False) for name in ("key", "full", "small")]
        lines = [Line([Cell(key), Cell(_short(full)), Cell(_short(small))]) for key, (full, small) in changes.items()]
        shrunk = Board(columns, lines)
    experiment = yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True) if run.experiment else ""
    plan, nodes = run.about.get("plan") or [], run.about.get("nodes") or []
    return Origin(run.name, str(run.about.get("command") or ""), facts, plan, nodes, shrunk, experiment)


def _differences(study: Study) -> Board | None:
    """What the runs were asked for differently; None for a single run."""
    if len(study.runs) == 1:
        return None
    keys = dict.fromkeys(key for run in study.runs for key in dotted_keys.flatten(run.experiment))
    lines = []
    for key in keys:
        values = [dotted_keys.lookup(run.experiment, key) for run in study.runs]
        is_branch = all(isinstance(value, dict) for value in values) and not key.startswith("search.")
        if not is_branch and key not in ("run.name", "run.dir") and any(value != values[0] for value in values):
            lines.append(Line([Cell(key), *(Cell(_short(value)) for value in values)]))
    return Board([Column(name, number=False) for name in ("key", *(run.name for run in study.runs))], lines)


def _short(value: Any) -> str:
    return "–" if value is None else label(value)
