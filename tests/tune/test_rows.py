"""Rows of a trial, made from what its training reports."""

from pathlib import Path
from typing import Any

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.runs.metrics_log import EARLY, RESIZE, read_rows
from doppel_ray.tune.rows import ReportWriter, RowAssembler, events_of


def assembler(folder: Path, sent: list[dict[str, Any]]) -> RowAssembler:
    return RowAssembler(ProbesConfig(tasks=()), 9, folder, sent.append)


def rows_of(folder: Path, *precisions: str, first: int = 1) -> list[dict[str, Any]]:
    """Return the rows of epochs, from `first` on, that were computed in these precisions."""
    sent: list[dict[str, Any]] = []
    rows = assembler(folder, sent)
    rows.catch_up(
        [
            {"metrics": {"epoch": epoch, "precision": precision}, "checkpoint": folder / "x"}
            for epoch, precision in enumerate(precisions, first)
        ]
    )
    rows.pump(lambda: False, lambda: None)
    return sent


def test_change_of_precision_is_an_event(tmp_path: Path) -> None:
    """Also when a trial resumes on other devices, and only once."""
    events = [row["events"] for row in rows_of(tmp_path, "bf16", "bf16", "fp32", "fp32")]
    assert [len(each) for each in events] == [0, 0, 1, 0]
    assert "training continues in fp32 after bf16" in events[2][0]
    (resumed,) = rows_of(tmp_path, "bf16", first=5)
    assert "training continues in bf16 after fp32" in resumed["events"][0]


def test_reports_become_rows_in_order(tmp_path: Path) -> None:
    """Events go to the next row, a checkpoint within an epoch makes none, and a row is sent once over all attempts."""
    sent: list[dict[str, Any]] = []
    rows = assembler(tmp_path, sent)
    writer = ReportWriter(rows.reports)
    writer.after_report(None, [{"epoch": 1, "loss": 2.0}], None)
    writer.after_report(None, [{"epoch": 1, "pairs": 1500, EARLY: "10 minutes have passed"}], None)
    writer.after_exception(None, {1: RuntimeError("out; of\nmemory; it was killed")})
    writer.after_report(None, [{"epoch": 2, "loss": 1.0, RESIZE: 4, "generator_restarts": 2}], None)
    writer.after_report(None, [{"epoch": 2, "loss": 1.0}], None)
    rows.pump(lambda: False, lambda: None)
    assert [row["epoch"] for row in sent] == [1, 2]
    assert RESIZE not in sent[1]
    assert sent[0]["events"] == []
    assert sent[1]["events"] == [
        "checkpoint within epoch 2, at pair 1,500: 10 minutes have passed",
        "train worker 1 failed, training resumes from the last checkpoint: RuntimeError: memory; it was killed",
        "a generator died and was restarted (2x); its blocks are made again",
        "there is room for 4 train workers: training restarts with them",
    ]
    assert read_rows(tmp_path) == sent
    again: list[dict[str, Any]] = []
    resumed = assembler(tmp_path, again)
    resumed.catch_up([{"metrics": {"epoch": epoch}, "checkpoint": tmp_path / "x"} for epoch in (1, 2, 3)])
    resumed.pump(lambda: False, lambda: None)
    assert [row["epoch"] for row in again] == [3]


def test_torn_report_does_not_end_the_trial(tmp_path: Path) -> None:
    """The controller died while it wrote; the next one's reports arrive."""
    sent: list[dict[str, Any]] = []
    rows = assembler(tmp_path, sent)
    rows.reports.write_text('{"metrics": {"epo')
    ReportWriter(rows.reports).after_report(None, [{"epoch": 1, "loss": 2.0}], None)
    rows.pump(lambda: False, lambda: None)
    assert [row["epoch"] for row in sent] == [1]


def test_divergence_is_kept_and_makes_no_row(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    rows = assembler(tmp_path, sent)
    ReportWriter(rows.reports).after_report(None, [{"epoch": 1, "diverged": "loss is nan at step 3"}], None)
    rows.pump(lambda: False, lambda: None)
    assert rows.diverged == "loss is nan at step 3"
    assert not sent


def test_events_of_old_rows() -> None:
    """Older versions wrote one text."""
    assert events_of({"events": "a generator died; training goes on"}) == ["a generator died", "training goes on"]
    assert events_of({"events": ""}) == events_of({}) == []
    assert events_of({"events": ["one; two"]}) == ["one; two"]
