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
    file = folder / ROWS
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: a damaged line is left out", file)
    return rows
