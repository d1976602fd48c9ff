"""Panels that the analyses share: a number against δ, and distributions side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from doppel_ray.analyze.distances import Estimate
from doppel_ray.analyze.sources import SoundSource
from doppel_ray.core.plotting import COLOURS, GREY, panels, title
from doppel_ray.synth import ARCHITECTURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def colour(name: str) -> str:
    """Return an architecture's colour, the same in every figure; grey for recordings."""
    return COLOURS[list(ARCHITECTURES).index(name)] if name in ARCHITECTURES else GREY


def many(layers: int) -> str:
    return "one sound" if layers == 1 else f"{layers} sounds at once"


def against_delta(
    heading: str, label: str, estimates: Mapping[SoundSource, Estimate]
) -> "tuple[Figure, dict[int, Axes]]":
    """Draw a number against δ: a panel for each number of layers, a line with its 95 % interval for each architecture.

    Returns:
        The figure, and its panels by number of layers, with shared axes.
    """
    layers = sorted({source.layers for source in estimates})
    figure, [axes] = panels(len(layers), share=True, width=4.2 if len(layers) > 1 else 5.2)
    title(figure, heading)
    by_layers = dict(zip(layers, axes, strict=True))
    for number, axis in by_layers.items():
        for name in sorted({source.name for source in estimates}, key=list(ARCHITECTURES).index):
            points = sorted(
                (source.delta, estimate.value, estimate.low, estimate.high)
                for source, estimate in estimates.items()
                if (source.name, source.layers) == (name, number) and source.delta is not None
            )
            deltas, values, low, high = (list(column) for column in zip(*points, strict=True))
            axis.plot(deltas, values, "o-", color=colour(name), markersize=4, linewidth=1.5, label=name)
            axis.fill_between(deltas, low, high, color=colour(name), alpha=0.18, linewidth=0)
        axis.set(title=many(number), xlabel="δ")
        _delta_axis(axis, sorted({source.delta for source in estimates if source.delta is not None}))
    axes[0].set_ylabel(label)
    return figure, by_layers


def _delta_axis(axis: "Axes", deltas: Sequence[float]) -> None:
    """Put a tick at each δ; the axis is logarithmic if they are far apart, linear from 0 to the smallest above it."""
    above = [delta for delta in deltas if delta > 0.0]
    if len(above) > 2 and max(above) / min(above) >= 8:
        axis.set_xscale("symlog", linthresh=above[0])
    axis.set_xticks(deltas, [f"{delta:g}" for delta in deltas])
    axis.minorticks_off()


def reference(axis: "Axes", value: float, label: str, style: str = "--", colour: str = GREY) -> None:
    """Draw a horizontal line."""
    axis.axhline(value, color=colour, linestyle=style, linewidth=1.2, label=label, zorder=1)


Side = Literal["both", "low", "high"]


def violins(
    axis: "Axes",
    groups: Mapping[str, np.ndarray],
    colours: Sequence[str],
    beside: Mapping[str, np.ndarray],
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw distributions side by side, each with its quartiles.

    Args:
        axis: to draw in.
        groups: label -> values.
        colours: of each.
        beside: other distributions of some of them, drawn as the left half in a paler shade.
        limits: of the values shown; None: the central 99 % of every group.
    """
    if limits is None:
        ends = [np.percentile(values, (0.5, 99.5)) for values in (*groups.values(), *beside.values())]
        limits = min(low for low, _ in ends), max(high for _, high in ends)
    for place, ((label, values), tone) in enumerate(zip(groups.items(), colours, strict=True)):
        _violin(axis, place, values, limits, "high" if label in beside else "both", tone, alpha=0.75)
        if label in beside:
            _violin(axis, place, beside[label], limits, "low", tone, alpha=0.3)
    axis.set_xticks(range(len(groups)), list(groups))
    margin = 0.03 * (limits[1] - limits[0])
    axis.set_ylim(limits[0] - margin, limits[1] + margin)
    axis.grid(False, axis="x")


def _violin(
    axis: "Axes", place: int, values: np.ndarray, limits: tuple[float, float], side: Side, tone: str, alpha: float
) -> None:
    """Draw one violin, or half of it, with median and quartiles."""
    shown = values[(values >= limits[0]) & (values <= limits[1])]
    if len(np.unique(shown)) > 1:  # a density needs two values
        drawn: Any = axis.violinplot(shown, [place], widths=0.85, showextrema=False, side=side)
        for body in drawn["bodies"]:
            body.set(facecolor=tone, alpha=alpha, edgecolor="white", linewidth=0.5)
    low, median, high = np.percentile(values, (25, 50, 75))
    at = place + {"both": 0.0, "high": 0.06, "low": -0.06}[side]
    axis.plot([at, at], [low, high], color="black", linewidth=1.2, solid_capstyle="butt")
    axis.plot([at], [median], "o", color="white", markeredgecolor="black", markersize=3.5)
