"""What the figures share: how they look, and how they are kept.

Lines differ in colour (Okabe and Ito's, which the colour-blind can tell apart), marker and dashes, so that they can be
told apart on paper without colours too. More than there are colours for are coloured by a number, without a legend.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator, NullLocator

from doppel_ray.core.plotting import COLOURS
from doppel_ray.report.leaderboard import write_csv
from doppel_ray.report.study import BASELINES, Setting, Study, short, title
from doppel_ray.runs.metrics_log import number

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (8, 3)),
    "-",
)
GREY, DARK = "#8a8a8a", "#444444"
LEVELS = {"untrained": (DARK, (0, (6, 3))), "mel": (GREY, (0, (1.5, 2)))}
"""Colour and dashes of each baseline's line."""
SCALE = LinearSegmentedColormap.from_list("scale", matplotlib.colormaps["viridis"](np.arange(232)))
"""From dark to light, so that it can be read without colours; without viridis' yellow, which paper swallows."""
WIDE = 8.0
"""Ratio of the largest number of an axis to the smallest from which the axis is logarithmic."""
PANEL = (3.7, 3.0)
"""Width and height of a panel in inches."""
ACROSS = 3
"""Panels side by side."""
ALONE = 1.5
"""Width of a single panel, in usual ones."""
MOST_TICKS = 8
"""Numbers that an axis has as its own ticks."""

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.labelcolor": DARK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.6,
    "savefig.dpi": 160,
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's own font
    "path.simplify_threshold": 0.4,
}


@dataclass(frozen=True)
class Style:
    """How one line is drawn."""

    colour: str
    marker: str
    dashes: Any


@dataclass(frozen=True)
class Figure:
    """A figure and the numbers behind it.

    Attributes:
        name: of its files.
        heading: what it shows, in a few words.
        caption: how to read it.
        data: the numbers, a row for each point.
    """

    name: str
    heading: str
    caption: str
    picture: Picture
    data: list[dict[str, Any]]

    @cached_property
    def svg(self) -> str:
        """The picture as SVG that can stand in a page: its ids are its own, and it takes the width that there is."""
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with matplotlib.rc_context({**RC, "svg.hashsalt": self.name}):
            self.picture.savefig(out, format="svg", metadata=nothing)
        self.picture.set_layout_engine("none")  # found by now, and half of the work: kept for the PNG
        drawn = out.getvalue()
        drawn = drawn[drawn.index("<svg") :]
        return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawn)  # of groups, which every picture numbers from 1

    def write(self, folder: Path) -> None:
        """Write it as SVG and PNG, and its numbers as CSV."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.svg").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{self.svg}')
        with matplotlib.rc_context(RC):
            self.picture.savefig(folder / f"{self.name}.png")
        write_csv(folder / f"{self.name}.csv", self.data)


def file_name(words: str) -> str:
    """Words from a run's folder, for a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words)[:80]


def text(words: str, most: int = 48) -> str:
    """Words from a run's folder, which may hold anything, as matplotlib shows them: no formulas, no control signs."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in words)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return shown.replace("$", r"\$")


@contextmanager
def panels(count: int, width: float = 1.0) -> Iterator[tuple[Picture, list[Axes]]]:
    """A picture with so many panels, in rows; within, everything is drawn in this package's style.

    Args:
        count: panels.
        width: of each, in usual ones; a single panel is wider by itself.
    """
    columns = 2 if count == 4 else min(count, ACROSS)
    width = max(width, ALONE) if count == 1 else width
    rows = -(-count // columns)
    with matplotlib.rc_context(RC):
        picture = Picture(figsize=(PANEL[0] * columns * width, PANEL[1] * rows), layout="constrained")
        axes = [picture.add_subplot(rows, columns, place + 1) for place in range(count)]
        yield picture, axes


def styles(count: int) -> list[Style]:
    return [Style(colour, marker, dashes) for colour, marker, dashes in zip(COLOURS, MARKERS, DASHES, strict=True)][
        :count
    ]


@dataclass(frozen=True)
class Shade:
    """Colours by a number, for more lines than there are styles.

    Attributes:
        what: what the number is.
        value: of a setting; None if it has none.
    """

    what: str
    value: Callable[[Setting], float | None]
    norm: Normalize

    def colour(self, setting: Setting) -> Any:
        value = self.value(setting)
        return GREY if value is None else SCALE(self.norm(value))

    def bar(self, picture: Picture, axes: Sequence[Axes]) -> None:
        """Add the colour bar."""
        bar = picture.colorbar(ScalarMappable(self.norm, SCALE), ax=list(axes), pad=0.02, aspect=30, fraction=0.05)
        bar.set_label(text(self.what))
        bar.outline.set_visible(False)
        if isinstance(self.norm, LogNorm):
            _plain_logarithms(bar.ax.yaxis)


def shade(study: Study, but: str | None = None) -> Shade:
    """Colours of the settings: by the number that was searched, if there is one such key; else by their metric.

    Args:
        study: what is drawn.
        but: a key that an axis shows already.
    """
    keys = [key for key in study.varied if key != but and study.is_numeric(key)]
    what, value = title(study.reported), study.reached
    if len(keys) == 1:
        what, value = short(keys[0]), lambda setting: number(setting.values[keys[0]])
    known = [found for setting in study.settings if (found := value(setting)) is not None] or [0.0, 1.0]
    norm = LogNorm if is_wide(known) else Normalize
    return Shade(what, value, norm(min(known), max(known)))


def cloud(
    axis: Axes, study: Study, name: str, coloured: Shade, place: Callable[[Setting], float | None]
) -> list[dict[str, Any]]:
    """Every setting's score as a coloured point, without its interval; returns the numbers.

    Args:
        place: where a setting stands along the axis; None: nowhere.
    """
    rows, colours = [], []
    for setting in study.settings:
        score, x = setting.score(name), place(setting)
        if score is not None and x is not None:
            colours.append(coloured.colour(setting))
            rows.append({**setting.values, "x": x, "score": name, "mean": score.mean})
    axis.scatter([row["x"] for row in rows], [row["mean"] for row in rows], s=14, c=colours, alpha=0.9, zorder=3)
    return rows


def is_wide(values: Sequence[float]) -> bool:
    """Whether numbers want a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= WIDE


def number_axis(axis: Axes, values: Sequence[float], label: str) -> None:
    """A horizontal axis of searched numbers: logarithmic where they are wide; a few are ticks themselves."""
    distinct = sorted(set(values))
    if is_wide(distinct):
        axis.set_xscale("log")
    if 0 < len(distinct) <= MOST_TICKS:
        axis.set_xticks(distinct, [f"{value:g}" for value in distinct])
        axis.minorticks_off()
    elif is_wide(distinct):
        _plain_logarithms(axis.xaxis)
    axis.set_xlabel(text(label))


def _plain_logarithms(axis: Axis) -> None:
    """Ticks at 0.01, 0.03, 0.1, written so."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def baselines(axis: Axes, study: Study, name: str) -> None:
    """A score's baselines as lines across."""
    for which, what in BASELINES.items():
        level = study.baseline(name, which)
        if level is not None:
            colour, dashes = LEVELS[which]
            axis.axhline(level, color=colour, linestyle=dashes, linewidth=1.1, label=what, zorder=1)


def point(axis: Axes, x: float, setting: Setting, name: str, style: Style) -> dict[str, Any]:
    """A setting's score with its interval; hollow if every trial of it was stopped early. Returns its numbers."""
    score = setting.score(name)
    if score is None:
        return {}
    if score.low is not None and score.high is not None:
        axis.vlines(x, score.low, score.high, color=style.colour, linewidth=1.2, alpha=0.75, zorder=2)
    hollow = setting.status == "stopped early"
    axis.plot(
        [x],
        [score.mean],
        linestyle="none",
        marker=style.marker,
        color=style.colour,
        markerfacecolor="white" if hollow else style.colour,
        zorder=3,
    )
    return {"score": name, "mean": score.mean, "low": score.low, "high": score.high, "interval_over": score.over}


def legend(picture: Picture, axes: Sequence[Axes], most: int = 12) -> None:
    """One legend for all panels, below them, in as many columns as its words leave room for."""
    known: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    if not known or len(known) > most:
        return
    inches = 0.62 + 0.070 * max(map(len, known))
    columns = max(1, min(4, int(picture.get_figwidth() / inches)))
    lines = -(-len(known) // columns)
    picture.set_figheight(picture.get_figheight() + 0.12 + 0.19 * lines)
    picture.legend(list(known.values()), list(known), loc="outside lower left", ncols=columns)
