"""Write a report: the page, its figures, and the tables as CSV."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from doppel_ray.config.search import label
from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.files import new_output
from doppel_ray.report.leaderboard import rows_table, settings_table, show, table, trials_table, write_csv
from doppel_ray.report.notes import chosen_on_test
from doppel_ray.report.study import Study, study
from doppel_ray.runs.reader import Run, read

PAGE = "report.html"
COMPARISON = "comparison"
"""Default folder for the report of several runs, in the first one's folder."""
FIGURES = "figures"
FILES = {
    "leaderboard.csv": "a row for each setting",
    "trials.csv": "a row for each trial",
    "rows.csv": "every row of every trial",
}


def place(runs: Sequence[Run], out: Path | None) -> Path:
    """Return the path of a report's page.

    Args:
        runs: its subject.
        out: a folder, or a file that ends in .html; None for the run's folder, or with several runs a new folder in
            the first one's.

    Raises:
        ConfigError: it would overwrite something that is not a report.
    """
    folder = out or (runs[0].folder / COMPARISON if len(runs) > 1 else runs[0].folder)
    page = folder if folder.suffix == ".html" else folder / PAGE
    if page.exists() and not _is_ours(page):
        raise ConfigError(f"{page} is not a report of doppel_ray, and is not overwritten; choose another --out")
    if page != folder and folder.exists():
        if not folder.is_dir():
            raise ConfigError(f"--out {folder} is a file; choose a folder, or a name that ends in .html")
        its_own = len(runs) == 1 and folder.resolve() == runs[0].folder.resolve()
        if any(folder.iterdir()) and not its_own and not page.exists():
            raise ConfigError(f"--out {folder} is a folder of other things, which is not overwritten; choose another")
    return page


def _is_ours(page: Path) -> bool:
    from doppel_ray.report.page import GENERATOR

    return (
        page.is_file()
        and f'name="generator" content="{GENERATOR} ' in page.read_text(encoding="utf-8", errors="replace")[:2000]
    )


def write(subject: Study, page: Path) -> None:
    """Write a report. `report.html` gets tables and figures beside it; a page of another name is alone.

    Raises:
        ConfigError: it cannot be written there.
    """
    from doppel_ray.report.figures import draw
    from doppel_ray.report.page import render

    figures = list(draw(subject))
    alone = page.name != PAGE
    html = render(subject, figures, {} if alone else FILES)
    with new_output(page, overwrite=True) as partial:
        partial.write_text(html, encoding="utf-8")
    if alone:
        return
    tables = (settings_table(subject), trials_table(subject), rows_table(subject))
    for name, rows in zip(FILES, tables, strict=True):
        write_csv(page.parent / name, rows)
    for figure in figures:
        figure.write(page.parent / FIGURES)


def publish(folder: Path, console: Console) -> None:
    """Write and print the report of a run's folder."""
    run = read(folder)
    make([run], place([run], None), console)
    console.print(f"watch: tensorboard --logdir {cli.quoted(folder / 'trials')}", markup=False)


def make(runs: Sequence[Run], page: Path, console: Console) -> None:
    """Write the report of one or several runs, and print it in short."""
    subject = study(runs)
    console.print(table(subject))
    log = partial(console.print, markup=False)
    for run in runs:
        if shrunk := run.about.get("shrunk"):
            changes = ", ".join(f"{key} {label(full)} → {label(small)}" for key, (full, small) in shrunk.items())
            log(f"scaled down (--scale small): {changes}")
        for line in run.warnings:
            log(f"warning: {line}")
        for line in run.missing:
            log(f"missing: {line}")
    write(subject, page)
    log(f"wrote {page}" + ("" if page.name != PAGE else f", with {', '.join(FILES)} and {FIGURES}/ beside it"))
    if on_test := subject.chosen_on_test:
        log(chosen_on_test(on_test))
    for line in _result(subject):
        log(line)


def _result(subject: Study) -> list[str]:
    """Return the best trial and its checkpoint, a line each."""
    score = subject.settings[0].score(subject.reported) if subject.settings else None
    if score is None:
        return [f"no trial has reported {subject.reported} yet"]
    first = subject.settings[0]
    champion, best = first.champion, first.best(first.champion) or {}
    result = f"best: {champion.name}, epoch {best.get('epoch')}: {subject.reported} {show(best.get(subject.reported))}"
    if first.metric != subject.reported:
        result += f", chosen by {first.metric} {show(best.get(first.metric))}"
    if score.over == "seeds":
        result += f" (mean of {first.seeds} seeds {score.mean:.4f}, 95 % {score.low:.4f} to {score.high:.4f})"
    return [result, f"best checkpoint: {champion.checkpoint(best) or champion.missing_checkpoint(best)}"]
