"""Base class and types of configuration sections.

A section is defined beside the code that reads it; `doppel_ray.config.experiment` combines them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator


def _as_text(value: Any) -> Any:
    return [str(name) for name in value] if isinstance(value, (list, tuple)) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_text)]
"""Names such as those of folds, which YAML may read as numbers: `[1, 2]` becomes `("1", "2")`."""


def _as_range(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, str):
        low, dots, high = value.partition("..")
        if dots and low.strip().isdigit() and high.strip().isdigit():
            return (int(low), int(high))
        if not dots and low.strip().isdigit():
            return (int(low), int(low))
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return tuple(value)
    raise ValueError("expected a number such as 2, or a range such as 1..4")


Range = Annotated[tuple[int, int], BeforeValidator(_as_range)]
"""Smallest and largest count: `4` means 4..4, `1..4` from 1 to 4."""


def expand_home(value: Any) -> Any:
    """Return a path with a leading `~` or `~user` replaced by the home folder, and any other value as it is.

    Raises:
        ValueError: there is no such user, or this account has no home folder.
    """
    if not isinstance(value, Path):
        return value
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError(f"{value.parts[0]} has no home folder; expected a path without ~") from None


def _fraction_or_whole(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError(f"{value:g} GPUs; expected a fraction of one GPU, such as 0.5, or a whole number")
    return value


Gpus = Annotated[float, Field(ge=0.0), AfterValidator(_fraction_or_whole)]
"""GPUs of one process, as Ray reserves them: a share of a single GPU, or whole ones."""


class Section(BaseModel):
    """A frozen, typed group of settings; unknown keys are refused, and `~` is the home folder in every path.

    The docstring under a field becomes its `--help` text.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="after")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        return expand_home(value)


def kind_of(value: Any) -> Any:
    """Return the `kind` of a section, or of its plain data."""
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
