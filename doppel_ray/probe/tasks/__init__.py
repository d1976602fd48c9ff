"""Probe tasks: sounds with targets and splits, from the user's recordings or from the synthesizer.

An entry of `probes.tasks` is a kind, or a mapping with `kind` and other settings.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag

from doppel_ray.core import dotted_keys
from doppel_ray.core.schema import kind_of
from doppel_ray.data.recordings.datasets import DATA_SETS
from doppel_ray.probe.tasks.entry import RecordedTask, Task, Unreadable
from doppel_ray.probe.tasks.factors import FACTORS, Factors
from doppel_ray.probe.tasks.hear import Hear
from doppel_ray.probe.tasks.manifest import Manifest
from doppel_ray.probe.tasks.native import Native

TASKS: dict[str, str] = {
    "factors": "parameters of unseen synthetic sounds; built in",
    **{kind: form.about for kind, form in DATA_SETS.items()},
    "hear": "a scene task in HEAR's format",
    "manifest": "a CSV, TSV or Parquet table of paths and labels",
}
"""Kind of task -> one line of help."""


def _entry(value: Any) -> Any:
    if isinstance(value, str):
        value = {"kind": value}
    kind = kind_of(value)
    if kind not in TASKS:
        raise ValueError(
            f"there is no task {kind!r}; expected one of {', '.join(TASKS)}{dotted_keys.suggestion(str(kind), TASKS)}"
        )
    return value


def _tag(value: Any) -> str:
    # Tags appear in the path of a validation error; the space distinguishes them from the user's keys.
    kind = kind_of(value)
    return f"kind {'native' if kind in DATA_SETS else kind}"


TaskConfig = Annotated[
    Annotated[Factors, Tag("kind factors")]
    | Annotated[Native, Tag("kind native")]
    | Annotated[Hear, Tag("kind hear")]
    | Annotated[Manifest, Tag("kind manifest")],
    Discriminator(_tag),
    BeforeValidator(_entry),
]
"""The settings of a task, discriminated by `kind`."""


def _listed(value: Any) -> Any:
    """Split `esc10,factors`, as typed on a command line, into a list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _distinct(tasks: Sequence[Task]) -> Sequence[Task]:
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two tasks have the name {twice!r}; rename one of them with {{kind: ..., name: ...}}")
    return tasks


TaskConfigs = Annotated[tuple[TaskConfig, ...], BeforeValidator(_listed), AfterValidator(_distinct)]
"""Type of `probes.tasks`."""

__all__ = [
    "FACTORS",
    "TASKS",
    "Factors",
    "Hear",
    "Manifest",
    "Native",
    "RecordedTask",
    "Task",
    "TaskConfig",
    "TaskConfigs",
    "Unreadable",
]
