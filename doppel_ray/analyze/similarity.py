"""Similarity of the two views of a pair, by δ and architecture: the paper's figure 2A."""

import itertools
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from doppel_ray.analyze import plots
from doppel_ray.analyze.analysis import Analysis, Findings, Row, by_delta, columns, spread
from doppel_ray.analyze.distances import Estimate, mean
from doppel_ray.analyze.sources import SoundSource, SourcePairs
from doppel_ray.analyze.spaces import EmbeddingSpace
from doppel_ray.core.plotting import legend


class Similarity(Analysis):
    """Cosine similarity of positive pairs and of random negatives: one view of a pair, and the other view of another
    pair of the same source.

    `above` is the chance that a pair is more similar than a random negative (the area under the ROC curve): at 1 the
    space separates them, at 0.5 the views of a pair share nothing. Pairs of recordings are two excerpts of one.
    """

    def __init__(self, space: EmbeddingSpace) -> None:
        self.space = space
        self.name = f"similarity_{space.name}"
        self.embedded: dict[SoundSource, Tensor] = {}
        self.items: dict[SoundSource, Tensor] = {}

    def add(self, pairs: SourcePairs, embedded: Tensor | None) -> None:
        assert embedded is not None
        self.embedded[pairs.source], self.items[pairs.source] = embedded, pairs.items

    def conclude(self) -> Findings:
        assert self.space is not None
        rows: list[Row] = []
        positive: dict[SoundSource, Estimate] = {}
        negative: dict[SoundSource, float] = {}
        for source, vectors in zip(self.embedded, self.space.levelled([*self.embedded.values()]), strict=True):
            pairs, others = cosines(vectors, self.items[source])
            positive[source], negative[source] = mean(pairs), float(others.mean())
            rows.append(
                columns(source)
                | spread("similarity", positive[source])
                | {"negatives": negative[source], "above": above(pairs, others), "pairs": len(pairs)}
            )
        return Findings(
            rows,
            by_delta(f"cosine similarity of pairs, {self.space.name} space", rows, "similarity"),
            {self.name: self._draw(positive, negative)},
            self._summary(positive, negative),
        )

    def _draw(self, positive: dict[SoundSource, Estimate], negative: dict[SoundSource, float]) -> Any:
        assert self.space is not None
        synthetic = {source: estimate for source, estimate in positive.items() if source.delta is not None}
        space = {"mel": "mel statistics", "clap": "CLAP", "checkpoint": "the checkpoint's space"}[self.space.name]
        figure, axes = plots.against_delta(f"Similarity of pairs in {space}", "cosine similarity", synthetic)
        for layers, axis in axes.items():
            for name in dict.fromkeys(source.name for source in synthetic):
                points = sorted(
                    (source.delta, value)
                    for source, value in negative.items()
                    if (source.name, source.layers) == (name, layers) and source.delta is not None
                )
                axis.plot(*zip(*points, strict=True), ":", color=plots.colour(name), linewidth=1.2)
            axis.plot([], [], ":", color=plots.GREY, label="random negatives")
            recorded = [source for source in positive if source.delta is None and source.layers == layers]
            for source in recorded:
                plots.reference(axis, positive[source].value, "recordings: two seconds of one")
                plots.reference(axis, negative[source], "recordings: random negatives", style=":", colour="black")
        legend(figure, axes[max(axes)])
        return figure

    def _summary(self, positive: dict[SoundSource, Estimate], negative: dict[SoundSource, float]) -> list[str]:
        """Return the δ at which each architecture's pairs are halfway between identical and random."""
        assert self.space is not None
        ways: dict[int, list[str]] = {}
        for name, layers in dict.fromkeys((s.name, s.layers) for s in positive if s.delta):
            points = sorted(
                (source.delta, (estimate.value - negative[source]) / (1.0 - negative[source]))
                for source, estimate in positive.items()
                if (source.name, source.layers) == (name, layers) and source.delta
            )
            ways.setdefault(layers, []).append(f"{_crossing(points)} ({name})")
        return [
            f"{self.space.name} space, {plots.many(layers)}: pairs are halfway between identical and random at δ = "
            + ", ".join(named)
            for layers, named in ways.items()
        ]


def cosines(vectors: Tensor, items: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines of both views of each pair (n,), and of each first view with second views of other items.

    Args:
        vectors: (2, n, size).
        items: (n,), the item of each pair; several pairs may be of one recording.
    """
    first, second = normalize(vectors, dim=-1)
    every = first @ second.T
    others = every[items.unsqueeze(1) != items]
    return every.diagonal().double().numpy(), others.double().numpy()


def above(pairs: np.ndarray, others: np.ndarray) -> float:
    """Return the chance that one of `pairs` is larger than one of `others`; ties count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, pairs, "left") + np.searchsorted(ordered, pairs, "right")
    return float(below.mean() / (2.0 * len(ordered)))


def _crossing(points: list[tuple[float, float]]) -> str:
    """Return where a falling line crosses one half, on a logarithmic scale of δ."""
    if points[0][1] < 0.5:
        return f"less than {points[0][0]:g}"
    for (delta, high), (larger, low) in itertools.pairwise(points):
        if low < 0.5:
            way = (high - 0.5) / (high - low)
            return f"{delta * (larger / delta) ** way:.2g}"
    return f"more than {points[-1][0]:g}"
