"""Style of all figures, and writing them as PNG and SVG."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, distinguishable for colour-blind readers."""

GREY = "#6E6E6E"
"""Colour of references and baselines."""

DPI = 150

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "doppel_ray",  # identical figures give identical files
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply this package's style to figures made and written in this context."""
    with matplotlib.rc_context(STYLE):
        yield


def panels(
    columns: int, rows: int = 1, width: float = 4.2, height: float = 3.4, share: bool = False
) -> "tuple[Figure, list[list[Axes]]]":
    """Return a figure and its panels, each `width` by `height` inches; `share` gives all panels the same axes."""
    from matplotlib.figure import Figure  # pyplot would keep figures in memory

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, [list(row) for row in axes]


def title(figure: "Figure", text: str) -> None:
    """Set a left-aligned title above all panels."""
    figure.suptitle(text, x=0.01, ha="left")


def legend(figure: "Figure", axis: "Axes", columns: int = 6) -> None:
    """Put the legend of one panel below all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    for file in files:
        figure.savefig(file, dpi=DPI, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files
