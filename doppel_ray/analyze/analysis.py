"""The base of all analyses: they take in the pairs of each source, then conclude."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from torch import Tensor

from doppel_ray.analyze.distances import Estimate
from doppel_ray.analyze.sources import RECORDINGS, SoundSource, SourcePairs
from doppel_ray.analyze.spaces import EmbeddingSpace
from doppel_ray.core import plotting
from doppel_ray.report.leaderboard import show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
"""A line of a table: column -> number, text or None."""


@dataclass(frozen=True)
class Findings:
    """The results of an analysis.

    Attributes:
        rows: its table, written to `<name>.csv`.
        table: the part of it for a terminal.
        figures: file name -> figure.
        summary: sentences that summarise it.
        extra: further numbers for `analysis.json`.
    """

    rows: list[Row]
    table: Table
    figures: "dict[str, Figure]"
    summary: list[str]
    extra: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, folder: Path) -> None:
        """Write the table as CSV and the figures as PNG and SVG."""
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(column for row in self.rows for column in row)))
            writer.writeheader()
            writer.writerows(self.rows)
        for stem, drawn in self.figures.items():
            plotting.save(drawn, folder / stem)


class Analysis(ABC):
    """One question about the sounds.

    Attributes:
        name: of its table and figures.
        space: of the embeddings that it needs, if any.
    """

    name: str
    space: EmbeddingSpace | None = None

    @abstractmethod
    def add(self, pairs: SourcePairs, embedded: Tensor | None) -> None:
        """Take in a source's pairs and their embeddings (2, n, size) in `space`."""

    @abstractmethod
    def conclude(self) -> Findings:
        """Return the results, after the pairs of all sources."""


def run(sources: Iterable[SourcePairs], analyses: Sequence[Analysis]) -> None:
    """Pass all sources to the analyses; each sound is made once and embedded once in each space."""
    spaces = {id(analysis.space): analysis.space for analysis in analyses if analysis.space is not None}
    for pairs in sources:
        embedded = {key: space(pairs.sounds) for key, space in spaces.items()}
        for analysis in analyses:
            analysis.add(pairs, embedded.get(id(analysis.space)))


def columns(source: SoundSource) -> Row:
    """Return the columns that identify a row's source."""
    return {"source": source.name, "layers": source.layers, "delta": source.delta}


def spread(name: str, estimate: Estimate) -> Row:
    """Return the columns of an estimate and its interval."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def by_delta(title: str, rows: Sequence[Row], value: str) -> Table:
    """Return one value of rows as a table: a line for each architecture and number of layers, a column for each δ."""
    deltas = sorted({row["delta"] for row in rows if row["delta"] is not None})
    found = {(row["source"], row["layers"], row["delta"]): row[value] for row in rows}
    shown = Table(title=title, title_justify="left")
    shown.add_column("source")
    recorded = [None] if any(row["delta"] is None for row in rows) else []
    for name in ("layers", *(f"δ = {delta:g}" for delta in deltas), *("recorded" for _ in recorded)):
        shown.add_column(name, justify="right")
    for name, layers in dict.fromkeys((row["source"], row["layers"]) for row in rows):
        cells = (found.get((name, layers, delta)) for delta in (*deltas, *recorded))
        shown.add_row(
            name,
            str(layers),
            *("" if cell is None else show(cell) for cell in cells),
            style="dim" if name == RECORDINGS else None,
        )
    return shown


def table(title: str, rows: Sequence[Row], names: Sequence[str]) -> Table:
    """Return some columns of rows as a table for a terminal; recordings, the reference, are dim."""
    shown = Table(title=title, title_justify="left")
    for name in names:
        shown.add_column("δ" if name == "delta" else name, justify="left" if name == "source" else "right")
    for row in rows:
        cells = (f"{row[name]:g}" if name == "delta" and row[name] is not None else show(row[name]) for name in names)
        shown.add_row(*cells, style="dim" if row["source"] == RECORDINGS else None)
    return shown
