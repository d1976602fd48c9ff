"""Parallel coordinates: each setting is a line through its values to its score."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from doppel_ray.report.figures.style import DARK, PANEL, SCALE, Figure, is_wide, panels, text
from doppel_ray.report.study import Setting, Study, short, title

MANY_KEYS, MANY_TRIALS = 3, 10
"""Keys or trials from which the figure is drawn: the other figures no longer show the whole search."""
MOST_WORDS = 10
"""Most words along an axis."""


def parallel(study: Study) -> Figure | None:
    """Draw an axis for each key and one for the score; None for a small search."""
    keys = study.varied
    scored = [(setting, score.mean) for setting in study.settings if (score := setting.score(study.reported))]
    if not keys or not scored or (len(keys) < MANY_KEYS and study.trials < MANY_TRIALS):
        return None
    settings, scores = [setting for setting, _ in scored], [score for _, score in scored]
    uprights = [_key(study, settings, key) for key in keys] + [_numbers(scores)]
    norm = Normalize(min(scores), max(scores))
    with panels(1, width=max(2.4, 0.55 * len(uprights))) as (picture, (axis,)):
        picture.set_figheight(PANEL[1] * 1.2)
        for order in reversed(range(len(settings))):  # the best above the others
            axis.plot(
                *_smooth([upright.heights[order] for upright in uprights]),
                color=SCALE(norm(scores[order])),
                linewidth=2.8 if order == 0 else 1.0,
                alpha=1.0 if order == 0 else max(0.4, 1.0 - len(settings) / 400),
            )
        for place, upright in enumerate(uprights):
            _draw(axis, place, upright)
        names = [*map(short, keys), title(study.reported)]
        axis.set_xticks(range(len(names)), [text(name, 24) for name in names])
        axis.tick_params(axis="x", length=0, pad=8)
        axis.xaxis.tick_top()
        axis.set_yticks([])
        axis.set_xlim(-0.1, len(keys) + 0.3)
        axis.set_ylim(-0.04, 1.04)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        bar = picture.colorbar(ScalarMappable(norm, SCALE), ax=axis, pad=0.01, aspect=25, fraction=0.04)
        bar.set_label(title(study.reported))
        bar.outline.set_visible(False)
    caption = f"A line for each setting, through its values to its {title(study.reported)}; the best is thick."
    data = [{**{key: setting.values.get(key) for key in keys}, study.reported: score} for setting, score in scored]
    return Figure("parallel", "The search as a whole", caption, picture, data)


@dataclass(frozen=True)
class _Upright:
    """One axis: height of each setting from 0 to 1, and labels by height."""

    heights: list[float]
    ticks: dict[float, str]


def _key(study: Study, settings: list[Setting], key: str) -> _Upright:
    if study.is_numeric(key):
        return _numbers([float(setting.values[key]) for setting in settings])
    names = [study.label(setting, key) for setting in settings]
    places = {name: place for place, name in enumerate(sorted(set(names)))}
    top = max(1, len(places) - 1)
    ticks = {place / top: name for name, place in places.items()} if len(places) <= MOST_WORDS else {}
    return _Upright([places[name] / top for name in names], ticks)


def _numbers(values: list[float]) -> _Upright:
    log = is_wide(values)
    scaled = np.log10(values) if log else np.asarray(values, dtype=float)
    low, high = float(scaled.min()), float(scaled.max())
    span = (high - low) or 1.0
    distinct = sorted(set(values))
    if len(distinct) <= MOST_WORDS // 2:
        marks = distinct
    elif log:
        marks = [10.0**power * step for power in range(-12, 12) for step in (1, 3)]
    else:
        marks = [float(mark) for mark in MaxNLocator(5).tick_values(low, high)]
    heights = {((np.log10(mark) if log else mark) - low) / span: f"{mark:g}" for mark in marks}
    ticks = {float(height): name for height, name in heights.items() if -1e-9 <= height <= 1 + 1e-9}
    return _Upright(((scaled - low) / span).tolist(), ticks)


def _smooth(heights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return a line that is level at every axis, so that the eye can follow it."""
    xs = np.linspace(0, len(heights) - 1, 24 * (len(heights) - 1) + 1)
    left = np.minimum(xs.astype(int), len(heights) - 2)
    step = xs - left
    ease = step * step * (3 - 2 * step)
    ys = np.asarray(heights)
    return xs, ys[left] * (1 - ease) + ys[left + 1] * ease


def _draw(axis: Axes, place: int, upright: _Upright) -> None:
    axis.axvline(place, color=DARK, linewidth=0.9, zorder=3)
    for height, name in upright.ticks.items():
        axis.annotate(
            text(name, 32),
            (place, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=DARK,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            zorder=4,
        )
