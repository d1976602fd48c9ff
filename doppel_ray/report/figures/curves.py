"""Learning curves: loss and scores during training."""

from itertools import repeat
from typing import Any

from doppel_ray.report.figures.style import COLOURS, Figure, Style, baselines, legend, panels, shade, styles, text
from doppel_ray.report.leaderboard import singles
from doppel_ray.report.study import Setting, Study, title
from doppel_ray.runs.metrics_log import number


def curves(study: Study) -> Figure | None:
    """Draw loss and scores against pairs, a line for each trial; repeats share colour and dashes. None without rows."""
    names = list(dict.fromkeys(["loss", *study.scores]))
    settings = [setting for setting in study.settings if any(trial.rows for trial in setting.trials)]
    alone = len(settings) == 1
    if alone:  # then its repeats can differ in style
        settings = singles(settings[0])
    if not settings:
        return None
    data: list[dict[str, Any]] = []
    few = len(settings) <= len(COLOURS)
    with panels(len(names)) as (picture, axes):
        coloured = None if few else shade(study)
        drawn_as = styles(len(settings)) if few else list(repeat(Style(COLOURS[0], "", "-"), len(settings)))
        for axis, name in zip(axes, names, strict=True):
            baselines(axis, study, name)
            # The best is drawn last, above the others.
            for order, setting in reversed(list(enumerate(settings))):
                style = drawn_as[order] if coloured is None else Style(coloured.colour(setting), "", "-")
                points = _points(study, setting, name)
                data += points
                for xs, ys in _lines(points):
                    thin = len(setting.repeats) > 1 or not few
                    axis.plot(
                        xs,
                        ys,
                        color=style.colour,
                        linestyle=style.dashes,
                        marker="o" if len(xs) == 1 else style.marker if len(xs) <= 20 else "",
                        markersize=3.5,
                        linewidth=1.0 if thin else 1.5,
                        alpha=0.8 if thin else 1.0,
                        zorder=2,
                    )
            for style, setting in zip(drawn_as, settings, strict=True) if few and len(settings) > 1 else ():
                label = f"seed {setting.repeats[0][-1]}" if alone else text(study.title(setting), 64)
                axis.plot([], [], color=style.colour, linestyle=style.dashes, marker=style.marker, label=label)
            axis.set_xlim(left=0)
            axis.set_xlabel("pairs")
            axis.xaxis.set_major_formatter(_thousands)
            axis.set_title("loss" if name == "loss" else title(name))
        if coloured is not None:
            coloured.bar(picture, axes)
        legend(picture, axes)
    caption = "A line for each trial" + ("; repeats look alike." if study.has_repeats and not alone else ".")
    return Figure("curves", "Learning curves", caption, picture, data)


def _points(study: Study, setting: Setting, name: str) -> list[dict[str, Any]]:
    return [
        {"trial": trial.name, **setting.values, "score": name, "pairs": row["pairs"], "value": row[name]}
        for trial in setting.trials
        for row in trial.rows
        if number(row.get(name)) is not None and number(row.get("pairs")) is not None
    ]


def _lines(points: list[dict[str, Any]]) -> list[tuple[list[float], list[float]]]:
    """Return each trial's line: pairs, and values."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in points:
        xs, ys = found.setdefault(row["trial"], ([], []))
        xs.append(row["pairs"])
        ys.append(row["value"])
    return list(found.values())


def _thousands(value: float, _: float) -> str:
    return f"{value / 1e6:g} M" if abs(value) >= 1e6 else f"{value / 1e3:g} k" if abs(value) >= 1e3 else f"{value:g}"
