"""Distances of synthetic sounds from the user's recordings: the paper's figure 3A, and a kernel distance."""

from abc import abstractmethod
from typing import Any

import numpy as np
from rich.table import Table
from torch import Tensor

from doppel_ray.analyze import distances, plots
from doppel_ray.analyze.analysis import Analysis, Findings, Row, columns, spread, table
from doppel_ray.analyze.descriptors import DESCRIPTORS, audible, describe
from doppel_ray.analyze.distances import Estimate
from doppel_ray.analyze.sources import RECORDINGS, SoundSource, SourcePairs
from doppel_ray.analyze.spaces import EmbeddingSpace
from doppel_ray.core.plotting import legend, panels, title


class Distance(Analysis):
    """The distance of each source's sounds from the recordings, by some measurement of each sound.

    The first views of its pairs represent a source, as encoders are trained on them. Their distribution depends on δ,
    because perturbed parameters are clipped to their range. The distance of two halves of the recordings is the floor.
    """

    label: str
    """Label of the figure's axis."""
    title: str

    def __init__(self) -> None:
        self.measured: dict[SoundSource, np.ndarray] = {}
        self.items = np.empty(0, dtype=np.int64)

    @abstractmethod
    def estimate(self, sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
        """Return the distance of sounds, (n, size), from recordings, (m, size)."""

    def keep(self, pairs: SourcePairs, measured: Tensor) -> None:
        """Keep the measurements of the first views, (n, size)."""
        self.measured[pairs.source] = measured.numpy()
        if pairs.source == REFERENCE:
            self.items = pairs.items.numpy()

    def estimates(self) -> dict[SoundSource, Estimate]:
        """Return the distance of each synthetic source from the unmixed recordings, nearest first."""
        recordings = self.measured[REFERENCE]
        found = {
            source: self.estimate(measured, recordings)
            for source, measured in self.measured.items()
            if source.delta is not None
        }
        return dict(sorted(found.items(), key=lambda entry: entry[1].value))

    def floor(self) -> Estimate | None:
        """Return the distance of two halves of the recordings, if there are enough of them."""
        first, second = distances.halves(self.items)
        recordings = self.measured[REFERENCE]
        if min(len(first), len(second)) < 4:
            return None
        return self.estimate(recordings[first], recordings[second])

    def draw(self, estimates: dict[SoundSource, Estimate], floor: Estimate | None) -> Any:
        figure, axes = plots.against_delta(self.title, self.label, estimates)
        for axis in axes.values():
            if floor is not None:
                plots.reference(axis, floor.value, "half of the recordings from the other half")
        legend(figure, axes[max(axes)])
        return figure

    def rows(self, estimates: dict[SoundSource, Estimate], floor: Estimate | None) -> list[Row]:
        rows = [columns(source) | spread("distance", estimate) for source, estimate in estimates.items()]
        return rows + ([columns(REFERENCE) | spread("distance", floor)] if floor is not None else [])

    def verdict(self, estimates: dict[SoundSource, Estimate], floor: Estimate | None, how: str) -> str:
        """Return a sentence about the nearest source."""
        (nearest, least), *others = estimates.items()
        tied = [str(source) for source, estimate in others if not estimate.exceeds(least)]
        beside = f"; not significantly further: {', '.join(tied[:3])}" if tied else ""
        if len(tied) > 3:
            beside += f" and {len(tied) - 3} more"
        reach = f" (two halves of the recordings: {floor.value:.3f})" if floor is not None else ""
        return f"nearest to the recordings {how}: {nearest}, {least} away{reach}{beside}"


def nearest_table(title: str, rows: list[Row], names: tuple[str, ...]) -> Table:
    """Return a table of the nearest sources and of the recordings' halves; the CSV has all sources."""
    synthetic = [row for row in rows if row["delta"] is not None]
    recorded = [row for row in rows if row["delta"] is None]
    more = f" (the first {SHOWN} of {len(synthetic)})" if len(synthetic) > SHOWN else ""
    return table(title + more, synthetic[:SHOWN] + recorded, names)


SHOWN = 12
"""Sources in the table on a terminal."""

REFERENCE = SoundSource(RECORDINGS, 1, None)
"""The unmixed recordings, the reference of all distances."""


class Spectral(Distance):
    """Distance by spectral descriptors: the paper's figure 3A.

    It is the mean over the descriptors of the 1-D Wasserstein distance, in standard deviations of the recordings.
    Silent sounds have no spectrum: they are left out and counted.
    """

    name = "spectral"
    title = "Distance of spectral descriptors from the recordings'"
    label = "mean Wasserstein distance\n(deviations of the recordings)"

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.silent: dict[SoundSource, int] = {}

    def add(self, pairs: SourcePairs, embedded: Tensor | None) -> None:
        sounds = pairs.sounds[0]
        sounding = audible(sounds)
        self.silent[pairs.source] = int((~sounding).sum())
        self.keep(pairs, describe(sounds[sounding], self.sample_rate))

    def estimate(self, sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
        return distances.spectral(sounds, recordings)

    def conclude(self) -> Findings:
        estimates, floor = self.estimates(), self.floor()
        recordings = self.measured[REFERENCE]
        rows = self.rows(estimates, floor)
        for row, source in zip(rows, estimates, strict=False):
            each = distances.wasserstein(self.measured[source], recordings)
            row |= dict(zip(DESCRIPTORS, each.tolist(), strict=True)) | {"silent": self.silent[source]}
        if floor is not None:
            first, second = distances.halves(self.items)
            each = distances.wasserstein(recordings[first], recordings[second])
            rows[-1] |= dict(zip(DESCRIPTORS, each.tolist(), strict=True)) | {"silent": self.silent[REFERENCE]}
        medians = [
            columns(source) | dict(zip(DESCRIPTORS, np.median(values, axis=0).tolist(), strict=True))
            for source, values in self.measured.items()
        ]
        return Findings(
            rows,
            nearest_table(
                "nearest by spectral descriptors: Wasserstein distance in deviations of the recordings",
                rows,
                ("source", "layers", "delta", "distance", "distance_low", "distance_high", *DESCRIPTORS),
            ),
            {"spectral": self._distributions(estimates), "spectral_distance": self.draw(estimates, floor)},
            [self.verdict(estimates, floor, "by spectral descriptors")],
            {"medians": medians},
        )

    def _distributions(self, estimates: dict[SoundSource, Estimate]) -> Any:
        """Draw each descriptor of the recordings and of each architecture: at its nearest δ, and at the smallest δ."""
        nearest: dict[str, SoundSource] = {}
        for source in estimates:
            nearest.setdefault(source.name, source)
        least = min((source.layers, source.delta) for source in estimates if source.delta is not None)
        figure, axes = panels(4, 2, width=3.1, height=2.6)
        cells = [axis for row in axes for axis in row]
        for position, ((descriptor, unit), axis) in enumerate(zip(DESCRIPTORS.items(), cells, strict=False)):
            groups = {RECORDINGS: self.measured[REFERENCE][:, position]}
            groups |= {name: self.measured[source][:, position] for name, source in nearest.items()}
            plain = {name: self.measured[SoundSource(name, *least)][:, position] for name in nearest}
            plots.violins(axis, groups, [plots.colour(name) for name in groups], plain)
            axis.set_title(f"{descriptor} ({unit})" if unit else descriptor)
            axis.tick_params(axis="x", labelsize=7.5)
        key = cells[len(DESCRIPTORS)]
        key.axis("off")
        text = "\n".join(
            [
                "whole: recordings",
                f"left, pale: δ = {least[1]:g}, {plots.many(least[0])}",
                "right: where the architecture is nearest,",
                *(f"    {name}: δ = {source.delta:g}, {plots.many(source.layers)}" for name, source in nearest.items()),
                "black: quartiles and median",
            ]
        )
        key.text(0.0, 0.95, text, va="top", fontsize=8, linespacing=1.5, transform=key.transAxes)
        title(figure, "Spectral descriptors of synthetic sounds and recordings")
        return figure


class Nearest(Distance):
    """The kernel distance (`distances.kernel`) of embeddings from those of the recordings."""

    def __init__(self, space: EmbeddingSpace) -> None:
        super().__init__()
        self.space = space
        self.name = f"nearest_{space.name}"
        self.title = f"Distance from the recordings in the {space.name} space"
        self.label = "kernel distance (squared MMD)"

    def add(self, pairs: SourcePairs, embedded: Tensor | None) -> None:
        assert embedded is not None
        self.keep(pairs, embedded[0])

    def estimate(self, sounds: np.ndarray, recordings: np.ndarray) -> Estimate:
        return distances.kernel(sounds, recordings)

    def conclude(self) -> Findings:
        assert self.space is not None
        estimates, floor = self.estimates(), self.floor()
        rows = self.rows(estimates, floor)
        return Findings(
            rows,
            nearest_table(
                f"nearest in the {self.space.name} space: kernel distance",
                rows,
                ("source", "layers", "delta", "distance", "distance_low", "distance_high"),
            ),
            {self.name: self.draw(estimates, floor)},
            [self.verdict(estimates, floor, f"in the {self.space.name} space")],
        )
