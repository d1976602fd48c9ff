"""`search`: the values that a sweep tries."""

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator, model_validator

from doppel_ray.core.schema import Section


def label(value: Any) -> str:
    """Return a searched value in short form for names and tables: `0.05`, `fade+time_mask`, `synthetic 0.7`."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        if "kind" in value:
            return str(value["kind"])
        return ", ".join(f"{name} {label(part)}" for name, part in sorted(value.items()) if part is not None)
    if isinstance(value, (list, tuple)):
        return "+".join(label(part) for part in value) or "none"
    return str(value)


class Space(Section):
    """The values of one searched key: exactly one of these fields."""

    grid: tuple[Any, ...] | None = None
    """Try each of these values, in every combination with other grids."""
    choice: tuple[Any, ...] | None = None
    """Draw one of these values."""
    uniform: tuple[float, float] | None = None
    """Draw a number between these two."""
    loguniform: tuple[float, float] | None = None
    """Draw a number between these two, uniformly in its logarithm."""
    randint: tuple[int, int] | None = None
    """Draw a whole number from the first up to, but not including, the second."""

    @model_validator(mode="after")
    def _one(self) -> "Space":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(type(self).model_fields)}; found {', '.join(given) or 'none'}"
            )
        kind = given[0]
        values = getattr(self, kind)
        if not values:
            raise ValueError(f"{kind} has no values")
        if kind in ("uniform", "loguniform", "randint"):
            low, high = values
            if not low < high:
                raise ValueError(f"{kind} is [{low}, {high}]; the first must be below the second")
            if kind == "loguniform" and low <= 0:
                raise ValueError(f"loguniform is [{low}, {high}]; both must be above 0")
        return self

    @field_validator("grid", "choice")
    @classmethod
    def _numbers(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Read numbers that YAML takes for text, such as 1e-3."""
        return None if values is None else tuple(_number(value) for value in values)

    @property
    def kind(self) -> str:
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    def examples(self) -> tuple[Any, ...]:
        """Return all values, or the ends of the range: if these are allowed, so is the whole space."""
        if self.randint is not None:
            return (self.randint[0], self.randint[1] - 1)
        return tuple(getattr(self, self.kind))


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
