"""Style, panels and files of the figures.

Lines differ in colour (Okabe and Ito's, made for the colour-blind), marker and dashes, so that they also differ in
black and white. More lines than colours are coloured by a number, with a colour bar in place of the legend.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

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
"""From dark to light, readable in black and white; without viridis' yellow, which is too pale on white."""
WIDE = 8.0
"""Ratio of an axis' largest number to its smallest above which the axis is logarithmic."""
PANEL = (3.7, 3.0)
"""Width and height of a panel in inches."""
ACROSS = 3
"""Panels side by side."""
ALONE = 1.5
"""Width of a single panel, relative to one of several."""
MOST_TICKS = 8
"""Most distinct values that are ticks themselves."""

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
    """Look of one line.

    Attributes:
        shift: to the right in points, so that intervals at the same place do not cover each other.
    """

    colour: str
    marker: str
    dashes: Any
    shift: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A figure and the numbers behind it.

    Attributes:
        name: stem of its files.
        heading: a few words.
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
        """The picture as SVG for a page, without ids that another picture has too."""
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with matplotlib.rc_context({**RC, "svg.hashsalt": self.name}):
            self.picture.savefig(out, format="svg", metadata=nothing)
        self.picture.set_layout_engine("none")  # keep the layout, half of the work, for the PNG
        drawn = out.getvalue()
        drawn = drawn[drawn.index("<svg") :]
        return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawn)  # ids of groups, which start at 1 in each picture

    def write(self, folder: Path) -> None:
        """Write it as SVG and PNG, and its numbers as CSV."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.svg").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{self.svg}')
        with matplotlib.rc_context(RC):
            self.picture.savefig(folder / f"{self.name}.png")
        write_csv(folder / f"{self.name}.csv", self.data)


def file_name(words: str) -> str:
    """Return words from a run's folder as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words)[:80]


def text(words: str, most: int = 64) -> str:
    """Return words from a run's folder, which may hold anything, for matplotlib: no formulas, no control characters."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in words)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return shown.replace("$", r"\$")


@contextmanager
def panels(count: int, width: float = 1.0) -> Iterator[tuple[Picture, list[Axes]]]:
    """Make a picture with panels in rows, and apply the style within the block.

    Args:
        count: number of panels.
        width: of a panel, relative to `PANEL`; a single panel is wider by itself.
    """
    columns = 2 if count == 4 else min(count, ACROSS)
    width = max(width, ALONE) if count == 1 else width
    rows = -(-count // columns)
    with matplotlib.rc_context(RC):
        picture = Picture(figsize=(PANEL[0] * columns * width, PANEL[1] * rows), layout="constrained")
        axes = [picture.add_subplot(rows, columns, place + 1) for place in range(count)]
        yield picture, axes


def styles(count: int) -> list[Style]:
    """Return `count` styles, at most as many as there are colours."""
    return [Style(colour, marker, dashes) for colour, marker, dashes in zip(COLOURS, MARKERS, DASHES, strict=True)][
        :count
    ]


@dataclass(frozen=True)
class Shade:
    """Colours by a number, for more lines than styles.

    Attributes:
        what: name of the number.
        value: the number of a setting; None if it has none.
    """

    what: str
    value: Callable[[Setting], float | None]
    norm: Normalize

    def colour(self, setting: Setting) -> Any:
        value = self.value(setting)
        return GREY if value is None else SCALE(self.norm(value))

    def bar(self, picture: Picture, axes: Sequence[Axes]) -> None:
        """Draw the colour bar."""
        bar = picture.colorbar(ScalarMappable(self.norm, SCALE), ax=list(axes), pad=0.02, aspect=30, fraction=0.05)
        bar.set_label(text(self.what))
        bar.outline.set_visible(False)
        if isinstance(self.norm, LogNorm):
            _plain_logarithms(bar.ax.yaxis)


def shade(study: Study, but: str | None = None) -> Shade:
    """Return the settings' colours: by the one numeric key, or by their score if there is none or more than one.

    Args:
        study: to draw.
        but: a key that an axis shows already.
    """
    keys = [key for key in study.varied if key != but and study.is_numeric(key)]
    what, value = title(study.reported), study.reported_score
    if len(keys) == 1:
        what, value = short(keys[0]), lambda setting: number(setting.values[keys[0]])
    known = [found for setting in study.settings if (found := value(setting)) is not None] or [0.0, 1.0]
    norm = LogNorm if is_wide(known) else Normalize
    return Shade(what, value, norm(min(known), max(known)))


def cloud(
    axis: Axes, study: Study, name: str, coloured: Shade, place: Callable[[Setting], float | None]
) -> list[dict[str, Any]]:
    """Draw every setting's score as a coloured point, without its interval; return the numbers.

    Args:
        place: a setting's place along the axis; None to leave it out.
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
    """Return whether numbers need a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= WIDE


def number_axis(axis: Axes, values: Sequence[float], label: str) -> None:
    """Format a horizontal axis of searched numbers: logarithmic if they are wide; a few are ticks themselves."""
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
    """Put ticks at 0.01, 0.03, 0.1 and so on, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def baselines(axis: Axes, study: Study, name: str) -> None:
    """Draw a score's baselines as horizontal lines."""
    for which, what in BASELINES.items():
        level = study.baseline(name, which)
        if level is not None:
            colour, dashes = LEVELS[which]
            axis.axhline(level, color=colour, linestyle=dashes, linewidth=1.1, label=what, zorder=1)


def point(axis: Axes, x: float, setting: Setting, name: str, style: Style) -> dict[str, Any]:
    """Draw a setting's score with its interval, hollow if all its trials were stopped early; return its numbers."""
    score = setting.score(name)
    if score is None:
        return {}
    if score.low is not None and score.high is not None:
        ends = (score.low, score.high)
        axis.vlines(x, *ends, color=style.colour, linewidth=1.2, alpha=0.75, zorder=2, transform=beside(axis, style))
    hollow = setting.status == "stopped early"
    axis.plot(
        [x],
        [score.mean],
        linestyle="none",
        marker=style.marker,
        color=style.colour,
        markerfacecolor="white" if hollow else style.colour,
        zorder=3,
        transform=beside(axis, style),
    )
    # Limits ignore what is drawn with another transform than the axis' own.
    axis.update_datalim([(x, value) for value in (score.mean, score.low, score.high) if value is not None])
    return {"score": name, "mean": score.mean, "low": score.low, "high": score.high, "interval_over": score.over}


def beside(axis: Axes, style: Style) -> Transform:
    """Return the axis' own transform, moved by a style's shift."""
    picture = cast(Picture, axis.figure)
    return axis.transData + ScaledTranslation(style.shift / 72, 0, picture.dpi_scale_trans)


def legend(picture: Picture, axes: Sequence[Axes], most: int = 12) -> None:
    """Draw one legend below all panels, in as many columns as fit."""
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
