"""The user's own data: a table of paths and labels."""

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from doppel_ray.core.errors import ConfigError
from doppel_ray.data.recordings.tables import (
    count,
    first,
    in_order,
    need_columns,
    need_each_once,
    read_cell,
    read_path,
    read_table,
)
from doppel_ray.probe.task import Kind
from doppel_ray.probe.tasks.entry import RecordedTask
from doppel_ray.probe.tasks.listing import SPLITS, Listing, divided

ALIASES = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid", "testing": "test"}
"""Other names of the splits."""

FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}

METRICS: dict[Kind, tuple[str, ...]] = {
    "multiclass": ("accuracy",),
    "multilabel": ("mAP", "d_prime", "aucroc"),
    "regression": ("score",),
}


class Manifest(RecordedTask):
    """A CSV, TSV or Parquet table with a row for each file.

    `root` is the table; paths in it are absolute or relative to its folder. A column has the splits (train, valid,
    test) or folds; without it, the files are divided into five folds by a hash of their paths, stratified by class (of
    several labels a file's rarest; values are not stratified). The folds are the same on every machine.
    """

    kind: Literal["manifest"] = "manifest"
    target: Kind = "multiclass"
    """multiclass: one label column. multilabel: a column of 0 and 1 for each label, or one column of labels separated
    by `;`. regression: columns of numbers."""
    path_column: str = "path"
    """Column of the paths."""
    label_columns: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = Field(default=("label",), min_length=1)
    """Columns of the labels or values."""
    fold_column: str | None = None
    """Column of the splits or folds; null: `split` or `fold` if the table has one."""

    @classmethod
    def _default_name(cls, data: dict[str, Any]) -> str:
        return Path(data["root"]).stem if data.get("root") else ""

    def listing(self, root: Path, sample_rate: int) -> Listing:
        columns, rows = read_table(root)
        fold_column = self.fold_column or next((name for name in ("split", "fold") if name in columns), None)
        if len(set(self.label_columns)) < len(self.label_columns):
            raise ConfigError(f"label_columns has a column twice: {', '.join(self.label_columns)}")
        need_columns(root, columns, [self.path_column, *self.label_columns, *([fold_column] if fold_column else [])])
        if not rows:
            raise ConfigError(f"{root}: no rows")
        if self.target == "multiclass" and len(self.label_columns) > 1:
            raise ConfigError(f"label_columns has {len(self.label_columns)} columns; a multiclass target has one")
        # In one column of labels, an empty cell means no labels.
        required = self.target != "multilabel" or len(self.label_columns) > 1
        files: list[tuple[str, list[str], str]] = []
        for number, row in enumerate(rows, start=1):
            path = read_path(root, number, row, self.path_column)
            found = [read_cell(root, number, row, column, required) for column in self.label_columns]
            files.append((path, found, read_cell(root, number, row, fold_column) if fold_column else ""))
        need_each_once(root, (path for path, _, _ in files))
        files.sort(key=lambda file: file[0])
        paths = [path for path, _, _ in files]
        labels, targets = self._targets(root, paths, [found for _, found, _ in files])
        if fold_column:
            parts = tuple(_part(fold) for _, _, fold in files)
        else:
            parts = divided(paths, _groups(self.target, targets))
        return Listing(
            tuple(root.parent / path for path in paths), self.target, targets, labels, parts, METRICS[self.target]
        )

    def _targets(self, table: Path, paths: list[str], cells: list[list[str]]) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the names of the classes or values, and targets as in `TaskSpec`."""
        if self.target == "multiclass":
            labels = in_order(label for (label,) in cells)
            number = {label: k for k, label in enumerate(labels)}
            return tuple(labels), np.array([number[label] for (label,) in cells])
        if self.target == "multilabel" and len(self.label_columns) == 1:
            found = [{label.strip() for label in cell.split(";")} - {""} for (cell,) in cells]
            labels = in_order(label for names in found for label in names)
            if not labels:
                raise ConfigError(f"{table}: no label in column {self.label_columns[0]}")
            return tuple(labels), np.array([[label in names for label in labels] for names in found])
        read = _flag if self.target == "multilabel" else _value
        values = [[read(cell) for cell in row] for row in cells]
        wrong = [
            f"{column} of {path} is {cell!r}"
            for path, row, found_row in zip(paths, cells, values, strict=True)
            for column, cell, value in zip(self.label_columns, row, found_row, strict=True)
            if value is None
        ]
        if wrong:
            expected = "0 or 1" if self.target == "multilabel" else "a number"
            raise ConfigError(f"{table}: {count(wrong, 'cell')} not {expected}: {first(wrong)}")
        return self.label_columns, np.array(values, dtype=bool if self.target == "multilabel" else np.float64)


def _part(name: str) -> str:
    """Return the usual name of a split, or a fold's own name."""
    plain = ALIASES.get(name.lower(), name.lower())
    return plain if plain in SPLITS else name


def _flag(cell: str) -> bool | None:
    return FLAGS.get(cell.lower())


def _value(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _groups(kind: Kind, targets: np.ndarray) -> list[int]:
    """Return the stratum of each file: its class; its rarest label, or -1 without labels; one stratum for values."""
    if kind == "multiclass":
        return targets.tolist()
    if kind == "regression":
        return [0] * len(targets)
    files = Counter(np.nonzero(targets)[1].tolist())
    return [min(np.flatnonzero(row).tolist(), key=lambda label: (files[label], label), default=-1) for row in targets]
