"""Probe tasks: sounds with targets and splits, from what the user has or from the synthesizer itself.

An entry of `probes.tasks` is a kind's name, or a mapping with `kind` and whatever else is set.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag

from doppel_ray.core import dotted_keys
from doppel_ray.core.schema import kind_of
from doppel_ray.probe.tasks.entry import RecordedTask, Task, Unreadable
from doppel_ray.probe.tasks.factors import FACTORS, Factors
from doppel_ray.probe.tasks.hear import Hear
from doppel_ray.probe.tasks.manifest import Manifest
from doppel_ray.probe.tasks.native import SOURCES, Native

TASKS: dict[str, str] = {
    "factors": "parameters of unseen synthetic sounds; built in",
    **{kind: source.about for kind, source in SOURCES.items()},
    "hear": "a scene task in HEAR's format",
    "manifest": "a CSV or Parquet table of paths and labels",
}
"""Every kind of task, with a line about it."""


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
    # Tags end up in the path of a fault. With a space in it this one is told from the names of the user's keys.
    kind = kind_of(value)
    return f"kind {'native' if kind in SOURCES else kind}"


TaskConfig = Annotated[
    Annotated[Factors, Tag("kind factors")]
    | Annotated[Native, Tag("kind native")]
    | Annotated[Hear, Tag("kind hear")]
    | Annotated[Manifest, Tag("kind manifest")],
    Discriminator(_tag),
    BeforeValidator(_entry),
]
"""The settings of any one task, told apart by `kind`."""


def _listed(value: Any) -> Any:
    """`esc10,factors`, as it may be typed on a command line, is a list too."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _distinct(tasks: Sequence[Task]) -> Sequence[Task]:
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two tasks have the name {twice!r}; give one of them another, as {{kind: ..., name: ...}}")
    return tasks


TaskConfigs = Annotated[tuple[TaskConfig, ...], BeforeValidator(_listed), AfterValidator(_distinct)]
"""What `probes.tasks` holds."""

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
