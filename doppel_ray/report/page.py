"""Render the page: one HTML file that needs nothing else. jinja2 escapes everything that comes from a run's folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

import doppel_ray
from doppel_ray.report import sections, tables
from doppel_ray.report.figures import Figure
from doppel_ray.report.notes import notes
from doppel_ray.report.study import Study, title

HERE = Path(__file__).parent
GENERATOR = "doppel_ray.report"
"""Start of the page's `generator`, which marks it as a report that a later one may overwrite."""
MOST_COMMANDS = 20
"""Commands on the page; the rest is in trials.csv."""


def render(study: Study, figures: Sequence[Figure], files: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        study: its subject.
        figures: its figures.
        files: name -> content of the files beside it; empty if the page is alone.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    missing = [line for run in study.runs for line in run.missing]
    commands = list(sections.commands(study))
    contents = {
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
        generator=f"{GENERATOR} {doppel_ray.__version__}",
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        facts=sections.facts(study),
        contents=[(anchor, name) for anchor, name in contents.items() if name],
        missing=missing,
        result=sections.result(study),
        leaderboard=tables.leaderboard(study),
        warnings=[f"Warning ({run.name}): {line}." for run in study.runs for line in run.warnings],
        notes=list(notes(study)),
        figures=[
            (figure, figure.svg, [f"figures/{figure.name}.{kind}" for kind in ("svg", "png", "csv")] if files else [])
            for figure in figures
        ],
        trials=tables.trials(study),
        commands=commands[:MOST_COMMANDS],
        commands_left_out=max(0, len(commands) - MOST_COMMANDS),
        commits=sections.commits(study),
        population=any(run.is_population for run in study.runs),
        differences=tables.differences(study),
        origins=[sections.origin(run) for run in study.runs],
        files=files,
    )
