"""Base class and types of configuration sections.

A section is defined beside the code that reads it; `doppel_ray.config.experiment` combines them.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


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


def _fraction_or_whole(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError(f"{value:g} GPUs; expected a fraction of one GPU, such as 0.5, or a whole number")
    return value


Gpus = Annotated[float, Field(ge=0.0), AfterValidator(_fraction_or_whole)]
"""GPUs of one process, as Ray reserves them: a share of a single GPU, or whole ones."""


class Section(BaseModel):
    """A frozen, typed group of settings; unknown keys are refused.

    The docstring under a field becomes its `--help` text.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def kind_of(value: Any) -> Any:
    """Return the `kind` of a section, or of its plain data."""
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
