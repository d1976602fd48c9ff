"""Score against each searched key: numbers along an axis (the paper's figure 4), words side by side (its figure 5)."""

import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from doppel_ray.report.figures.style import (
    COLOURS,
    Figure,
    Shade,
    Style,
    baselines,
    beside,
    cloud,
    file_name,
    legend,
    number_axis,
    panels,
    point,
    shade,
    styles,
    text,
)
from doppel_ray.report.study import Setting, Study, short, title
from doppel_ray.runs.metrics_log import number

APART = 4.0
"""Shift in points from one line of a panel to the next."""
MOST_WORDS = 16
"""Most values of a key side by side."""
INTERVALS = (
    "Vertical lines are 95 % intervals: over seeds where a setting was repeated, else over test examples. "
    "Hollow: stopped early."
)

CLOUD = "A point for each setting, coloured as the bar shows. Intervals are in the tables."


def against(study: Study, key: str) -> Figure:
    """Draw the score against a number: a panel for each task, a line for each value of the other keys."""
    others = [other for other in study.varied if other != key]
    series = _series(study, others)
    data: list[dict[str, Any]] = []
    with panels(len(study.scores)) as (picture, axes):
        coloured = None if _few(series) else shade(study, but=key)
        for axis, name in zip(axes, study.scores, strict=True):
            baselines(axis, study, name)
            if coloured is None:
                for style, (label, settings) in zip(_apart(len(series)), series.items(), strict=True):
                    data += _line(axis, settings, key, name, style, label)
            else:
                data += cloud(axis, study, name, coloured, lambda setting: number(setting.values[key]))
            xs = [float(setting.values[key]) for setting in study.settings if setting.score(name)]
            number_axis(axis, xs, short(key))
            axis.set_title(title(name))
        _explain(picture, axes, coloured)
    caption = CLOUD if coloured else f"A line for each {_listed(others)}. {INTERVALS}" if others else INTERVALS
    return Figure(file_name(f"score_against_{key}"), f"Score against {short(key)}", caption, picture, data)


def by(study: Study, key: str) -> Figure:
    """Draw the score for each value of a key: a panel for each task, the values of the other keys side by side."""
    others = [other for other in study.varied if other != key]
    series = _series(study, others)
    words = list(study.labels[key].values())[:MOST_WORDS]
    data: list[dict[str, Any]] = []
    with panels(len(study.scores)) as (picture, axes):
        coloured = None if len(series) <= len(COLOURS) else shade(study, but=key)
        for axis, name in zip(axes, study.scores, strict=True):
            baselines(axis, study, name)
            if coloured is None:
                data += _beside(axis, study, series, key, words, name)
            else:
                data += cloud(axis, study, name, coloured, _spread(study, key, words))
            _words_axis(axis, words)
            axis.set_title(title(name))
        _explain(picture, axes, coloured)
    left_out = len(study.labels[key]) - len(words)
    caption = CLOUD if coloured else INTERVALS
    caption += f" {left_out} more values of {key} are in the table." if left_out > 0 else ""
    return Figure(file_name(f"score_by_{key}"), f"Score for each {short(key)}", caption, picture, data)


def _series(study: Study, keys: list[str]) -> dict[str, list[Setting]]:
    """Return the settings by their values of some keys: label of a line -> its settings."""
    found: dict[str, list[Setting]] = {}
    for setting in study.settings:
        found.setdefault(study.title(setting, keys) if keys else "", []).append(setting)
    return dict(sorted(found.items()))


def _few(series: dict[str, list[Setting]]) -> bool:
    """Return whether there are enough colours for the lines, and more than a point in some."""
    return len(series) <= len(COLOURS) and (len(series) == 1 or any(len(settings) > 1 for settings in series.values()))


def _apart(count: int) -> list[Style]:
    """Return styles that are shifted so that intervals at the same place do not cover each other."""
    return [replace(style, shift=APART * (order - (count - 1) / 2)) for order, style in enumerate(styles(count))]


def _line(axis: Axes, settings: list[Setting], key: str, name: str, style: Style, label: str) -> list[dict[str, Any]]:
    found = []
    placed = sorted(settings, key=lambda setting: setting.values[key])
    for setting in placed:
        if numbers := point(axis, setting.values[key], setting, name, style):
            found.append({key: setting.values[key], "series": label, **numbers})
    xs, ys = [row[key] for row in found], [row["mean"] for row in found]
    axis.plot(xs, ys, color=style.colour, linestyle=style.dashes, zorder=2, transform=beside(axis, style))
    if label:
        axis.plot([], [], color=style.colour, linestyle=style.dashes, marker=style.marker, label=text(label))
    return found


def _beside(
    axis: Axes, study: Study, series: dict[str, list[Setting]], key: str, words: list[str], name: str
) -> list[dict[str, Any]]:
    """Draw the settings of each word side by side, a series in one style."""
    found = []
    drawn = dict(zip(series, styles(len(series)), strict=True))
    for place, word in enumerate(words):
        here = [
            (label, setting)
            for label, settings in series.items()
            for setting in settings
            if study.label(setting, key) == word and setting.score(name)
        ]
        for position, (label, setting) in enumerate(here):
            x = place + _shift(position, len(here))
            found.append({key: word, "series": label, **point(axis, x, setting, name, drawn[label])})
    for label, style in drawn.items() if len(drawn) > 1 else ():
        axis.plot([], [], linestyle="none", marker=style.marker, color=style.colour, label=text(label))
    return found


def _spread(study: Study, key: str, words: list[str]) -> Callable[[Setting], float | None]:
    """Return the places of many settings: around their word, in the order of their rank."""
    groups = {word: [setting for setting in study.settings if study.label(setting, key) == word] for word in words}
    places = {
        id(setting): place + _shift(position, len(groups[word]))
        for place, word in enumerate(words)
        for position, setting in enumerate(groups[word])
    }
    return lambda setting: places.get(id(setting))


def _shift(position: int, count: int) -> float:
    """Return a point's distance from its word."""
    return min(0.2, 0.7 / count) * (position - (count - 1) / 2)


def _words_axis(axis: Axes, words: list[str]) -> None:
    width = max(9, 42 // max(1, len(words)))
    shown = [textwrap.wrap(word.replace("+", "+ "), width, max_lines=4) for word in words]
    axis.set_xticks(range(len(words)), ["\n".join(text(line.replace("+ ", "+")) for line in lines) for lines in shown])
    axis.set_xlim(-0.55, len(words) - 0.45)
    axis.grid(visible=False, axis="x")


def _explain(picture: Picture, axes: list[Axes], coloured: Shade | None) -> None:
    if coloured is not None:
        coloured.bar(picture, axes)
    legend(picture, axes)


def _listed(keys: list[str]) -> str:
    return " and ".join(", ".join(map(short, keys)).rsplit(", ", 1))
