"""The rows of a trial, as they lie in its folder."""

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Row = dict[str, Any]
ROWS = "rows.jsonl"
"""The rows that a trial has sent, a line of JSON each."""


def read_rows(folder: Path) -> list[Row]:
    """The rows that a trial has sent, oldest first; a line that was cut short by a crash is left out."""
    rows, damaged = sound_rows(folder)
    if damaged:
        log.warning("%s: %d damaged %s left out", folder / ROWS, damaged, "line" if damaged == 1 else "lines")
    return rows


def sound_rows(folder: Path) -> tuple[list[Row], int]:
    """The rows that a trial has sent, oldest first, and how many lines are damaged and left out."""
    file = folder / ROWS
    rows, damaged = [], 0
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged
