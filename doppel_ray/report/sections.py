"""The sections of the page around its tables: the head, the result, commands, and the origin of the numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from doppel_ray.config.variants import SEED
from doppel_ray.core import dotted_keys
from doppel_ray.report.leaderboard import show
from doppel_ray.report.study import BASELINES, Setting, Study, title
from doppel_ray.report.tables import PageTable, duration, interval, scaled_down
from doppel_ray.runs.metrics_log import Row, checkpoint_name, number
from doppel_ray.runs.reader import Run, Trial


def facts(study: Study) -> list[str]:
    """Return the size of a study in a few words each."""
    trials = [trial for setting in study.settings for trial in setting.trials]
    statuses = [trial.status for trial in trials]
    counted = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    found = [f"{_count(len(trials), 'trial')}{f' ({counted})' if counted else ''}"]
    if study.has_repeats:
        found.append(_count(len(study.settings), "setting"))
    if pairs := sum(int(number(trial.rows[-1].get("pairs")) or 0) for trial in trials if trial.rows):
        found.append(f"{pairs:,} pairs")
    if seconds := sum(trial.total("train_seconds") or 0.0 for trial in trials):
        found.append(f"{duration(seconds)} of training")
    found += [str(run.about["time"]).partition("T")[0] for run in study.runs[:1] if "time" in run.about]
    return found


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


# --- the result -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """The best setting, in words.

    Attributes:
        setting: what distinguishes it.
        score: its test score.
        interval: of the score; empty without one.
        gain: over the baselines; empty without baselines.
        trial: its best trial, the epoch, and what chose it.
        checkpoint: of that trial.
    """

    setting: str
    score: str
    interval: str
    gain: str
    trial: str
    checkpoint: str


def result(study: Study) -> Result | None:
    """Return the best setting; None while there is no score."""
    if not study.settings or (score := study.settings[0].score(study.reported)) is None:
        return None
    first = study.settings[0]
    champion, row = first.champion, first.best(first.champion) or {}
    over = f"{first.seeds} seeds" if score.over == "seeds" else score.over
    best = "best trial: " if len(first.trials) > 1 else ""
    chosen = f", chosen by {title(first.metric)} {show(row[first.metric])}" if first.metric != study.reported else ""
    return Result(
        setting=study.title(first),
        score=show(score.mean),
        interval=f"{interval(score)} (95 % over {over})" if score.over else "",
        gain=_gain(first, study.reported),
        trial=f"{best}{champion.name}, epoch {row.get('epoch', '–')}{chosen}",
        checkpoint=_checkpoint(champion, row),
    )


def _gain(setting: Setting, name: str) -> str:
    gain = setting.gain(name)
    if gain is None:
        return ""
    levels = [
        f"{what} {show(level)}"
        for which, what in BASELINES.items()
        if (level := setting.baseline(name, which)) is not None
    ]
    side = "above" if gain >= 0 else "below"
    return f"{abs(gain):.3f} {side} the better of its baselines ({', '.join(levels)})"


def _checkpoint(trial: Trial, row: Row) -> str:
    """Return a row's checkpoint within the run's folder: `trials/NAME/checkpoints/epoch_0003`."""
    if trial.checkpoint(row) is None:
        return trial.missing_checkpoint(row)
    return f"trials/{trial.name}/{checkpoint_name(row)}"


# --- commands and origin ----------------------------------------------------------------------------------------------


def commands(study: Study) -> Iterator[tuple[str, str]]:
    """Yield each trial's name and the command that trains it again, in the order of the leaderboard."""
    for setting in study.settings:
        for run, trial, _ in setting.repeats:
            if (command := trial.command(run.name)) is not None:
                yield trial.name if len(study.runs) == 1 else f"{run.name}: {trial.name}", command


def commits(study: Study) -> list[tuple[str, str, bool]]:
    """Return (run, commit, whether the code had uncommitted changes) of each run that has recorded it."""
    return [
        (run.name, str(commit).partition("+")[0], "+" in str(commit))
        for run in study.runs
        if (commit := run.about.get("commit"))
    ]


@dataclass(frozen=True)
class Origin:
    """Where a run's numbers come from."""

    name: str
    command: str
    facts: list[tuple[str, str]]
    plan: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    shrunk: PageTable | None = None
    experiment: str = ""


def origin(run: Run) -> Origin:
    """Return where a run's numbers come from."""
    about = run.about
    machine, versions = about.get("machine") or {}, about.get("versions") or {}
    changes = about.get("shrunk")
    return Origin(
        name=run.name,
        command=str(about.get("command") or ""),
        facts=[
            ("folder", str(run.folder)),
            ("started", str(about.get("time", "–")).replace("T", " ")),
            ("commit", str(about.get("commit") or "–")),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "–"),
            ("machine", ", ".join(f"{name}: {value}" for name, value in machine.items()) or "–"),
            ("seed", str(dotted_keys.lookup(run.experiment, SEED))),
            ("chosen by", f"{run.metric} ({run.mode})"),
        ],
        plan=about.get("plan") or [],
        nodes=about.get("nodes") or [],
        shrunk=scaled_down(changes) if changes else None,
        experiment=yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True) if run.experiment else "",
    )
