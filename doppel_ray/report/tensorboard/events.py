"""Tags of TensorBoard, and the files that hold its points."""

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from doppel_ray.runs.columns import USAGE


def chosen_tag(column: str) -> str:
    """Return the tag of a score of the chosen row: `chosen/esc10/accuracy`."""
    return column.replace("probe", "chosen", 1)


def tag(column: str, main: Collection[str]) -> str:
    """Return the tag of a row's column: `train/loss`, `probe/esc10/accuracy`, `probe-details/esc10/fold_1`.

    Args:
        column: of a row.
        main: the columns with the main score of a task.
    """
    if column in USAGE:
        return f"usage/{column.replace('/', '_')}"
    if column.startswith("probe/") and column not in main:
        return column.replace("probe", "probe-details", 1)
    return column if "/" in column else f"train/{column}"


class EventLog:
    """An event file of a TensorBoard run.

    Args:
        folder: of the run.
        ending: of the file's name.
    """

    def __init__(self, folder: Path, ending: str = "") -> None:
        self.file = EventFileWriter(str(folder), filename_suffix=ending)
        self.described: set[str] = set()

    def add(self, values: Iterable[Summary.Value], step: int = 0) -> None:
        """Add values at a step."""
        self.file.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def scalars(self, values: Mapping[str, float], step: int, descriptions: Mapping[str, str]) -> None:
        """Add a point to each curve.

        Args:
            values: tag -> value.
            step: place of the points.
            descriptions: tag -> its meaning in Markdown; stored with the first point of a curve.
        """
        self.add(
            (
                Summary.Value(tag=name, simple_value=value, metadata=self._metadata(name, descriptions.get(name, "")))
                for name, value in values.items()
            ),
            step,
        )

    def _metadata(self, name: str, description: str) -> SummaryMetadata | None:
        if name in self.described:
            return None
        self.described.add(name)
        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        return SummaryMetadata(summary_description=description, plugin_data=plugin)

    def forget_after(self, step: int) -> None:
        """Let TensorBoard drop the points after `step` that the run has so far."""
        restart = SessionLog(status=SessionLog.START)
        self.file.add_event(Event(wall_time=time.time(), step=step + 1, session_log=restart))

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()
