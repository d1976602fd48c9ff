"""Principal components of pairs in an embedding space: the paper's figure 2B."""

from typing import Any

import torch
from torch import Tensor

from doppel_ray.analyze import plots
from doppel_ray.analyze.analysis import Analysis, Findings, Row, by_delta, columns
from doppel_ray.analyze.sources import RECORDINGS, SoundSource, SourcePairs
from doppel_ray.analyze.spaces import EmbeddingSpace
from doppel_ray.core.plotting import GREY, panels, title

SHOWN = 40
"""Largest number of pairs in a panel; more would hide each other."""


class Pca(Analysis):
    """Principal components of all embeddings, with equal weight for every source, and a segment for each pair.

    All panels show the same two components; recordings are grey points. `length` is the length of pairs' segments
    divided by the distance of unpaired sounds, both in the plane: near 0 where δ hardly moves a sound, 1 where
    pairs are as far apart as any two sounds.
    """

    def __init__(self, space: EmbeddingSpace) -> None:
        self.space = space
        self.name = f"pca_{space.name}"
        self.embedded: dict[SoundSource, Tensor] = {}

    def add(self, pairs: SourcePairs, embedded: Tensor | None) -> None:
        assert embedded is not None
        self.embedded[pairs.source] = embedded

    def conclude(self) -> Findings:
        assert self.space is not None
        groups = self.space.levelled([*self.embedded.values()])
        directions, explained = components(groups)
        plane = {source: group @ directions for source, group in zip(self.embedded, groups, strict=True)}
        rows: list[Row] = []
        lengths: dict[SoundSource, float] = {}
        for source, (first, second) in plane.items():
            lengths[source] = _length(first, second)
            for pair, (start, end) in enumerate(zip(first[:SHOWN].tolist(), second[:SHOWN].tolist(), strict=True)):
                ends = dict(zip(("x_1", "y_1", "x_2", "y_2"), (*start, *end), strict=True))
                rows.append(columns(source) | {"pair": pair} | ends)
        summary: list[Row] = [columns(source) | {"length": length} for source, length in lengths.items()]
        first_part, second_part = explained
        sentence = (
            f"{self.space.name} space: two principal components hold {first_part + second_part:.0%} of the variance "
            f"({first_part:.0%} and {second_part:.0%})"
        )
        return Findings(
            rows,
            by_delta(f"length of pairs' segments, {self.space.name} space", summary, "length"),
            {
                f"{self.name}_{layers}": self._draw(layers, plane, lengths, explained)
                for layers in sorted({source.layers for source in plane})
            },
            [sentence],
            {"explained_variance": explained, "length": summary},
        )

    def _draw(
        self,
        layers: int,
        plane: dict[SoundSource, Tensor],
        lengths: dict[SoundSource, float],
        explained: tuple[float, float],
    ) -> Any:
        synthetic = [source for source in plane if source.delta is not None and source.layers == layers]
        names = list(dict.fromkeys(source.name for source in synthetic))
        deltas = sorted({source.delta for source in synthetic if source.delta is not None})
        figure, axes = panels(len(deltas), len(names), width=2.3, height=2.3, share=True)
        every = torch.cat([points.flatten(0, 1) for points in plane.values()])
        low, high = (torch.quantile(every, q, dim=0).tolist() for q in (0.005, 0.995))
        recorded = plane.get(SoundSource(RECORDINGS, 1, None))
        for source in synthetic:
            axis = axes[names.index(source.name)][deltas.index(source.delta or 0.0)]
            if recorded is not None:
                axis.scatter(
                    recorded[0, :, 0], recorded[0, :, 1], s=4, color=GREY, alpha=0.35, linewidths=0, label=RECORDINGS
                )
            x, y = plane[source][:, :SHOWN].unbind(dim=-1)  # (2, pairs) each: a column is a segment
            tone = plots.colour(source.name)
            axis.plot(x, y, "-", color=tone, linewidth=0.8, alpha=0.8)
            axis.scatter(x, y, s=7, color=tone, linewidths=0)
            axis.text(0.97, 0.03, f"{lengths[source]:.2f}", transform=axis.transAxes, ha="right", fontsize=8)
            axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticklabels=[], yticklabels=[])
            axis.tick_params(length=0)
        for axis, delta in zip(axes[0], deltas, strict=True):
            axis.set_title(f"δ = {delta:g}")
        for row, name in zip(axes, names, strict=True):
            row[0].set_ylabel(name, color=plots.colour(name), fontweight="bold")
        assert self.space is not None
        shares = f"PC 1: {explained[0]:.0%}, PC 2: {explained[1]:.0%} of the variance"
        grey = "; grey: recordings" if recorded is not None else ""
        title(figure, f"Pairs in the {self.space.name} space, {plots.many(layers)}")
        corner = "in the corner: length of segments / distance of unpaired sounds"
        figure.supxlabel(f"{shares}; {corner}{grey}", fontsize=8)
        return figure


def components(groups: list[Tensor]) -> tuple[Tensor, tuple[float, float]]:
    """Return the two principal components of groups of vectors (..., size), and their shares of the variance.

    Every group has the same weight.

    Returns:
        (size, 2), orthonormal, each pointing where its largest entry is positive; two numbers in [0, 1].
    """
    means = torch.stack([group.flatten(0, -2).double().mean(dim=0) for group in groups])
    centre = means.mean(dim=0)
    centred = [group.flatten(0, -2).double() - centre for group in groups]
    covariance = torch.stack([rows.T @ rows / len(rows) for rows in centred]).mean(dim=0)
    variance, directions = torch.linalg.eigh(covariance)
    two = directions[:, [-1, -2]]
    two = two * torch.sign(two.gather(0, two.abs().argmax(dim=0, keepdim=True)))
    first, second = (variance[[-1, -2]] / variance.sum()).tolist()
    return two.float(), (first, second)


def _length(first: Tensor, second: Tensor) -> float:
    """Return the mean distance of paired ends, (n, 2) each, divided by that of all pairs of ends."""
    apart = torch.linalg.vector_norm(first - second, dim=1).mean()
    return float(apart / torch.cdist(first, second).mean())
