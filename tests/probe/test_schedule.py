"""Rows of a trial, made from what its training reports."""

from pathlib import Path
from typing import Any

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.tune.probing import Rows


def sent(folder: Path, *precisions: str, first: int = 1) -> list[dict[str, Any]]:
    """The rows of a life of a trial whose epochs, from `first` on, were computed in these precisions."""
    found: list[dict[str, Any]] = []
    rows = Rows(ProbesConfig(tasks=()), 9, folder, found.append)
    rows.catch_up(
        [
            {"metrics": {"epoch": epoch, "precision": precision}, "checkpoint": folder / "x"}
            for epoch, precision in enumerate(precisions, first)
        ]
    )
    rows.pump(lambda: False, lambda: None)
    return found


def test_a_change_of_precision_is_an_event(tmp_path: Path) -> None:
    """Also where a trial was resumed on other devices, and only once."""
    events = [row["events"] for row in sent(tmp_path, "bf16", "bf16", "fp32", "fp32")]
    assert ["fp32, and was in bf16" in event for event in events] == [False, False, True, False]
    (resumed,) = sent(tmp_path, "bf16", first=5)
    assert "bf16, and was in fp32" in resumed["events"]
