"""What a sweep varies and how it is steered."""

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator, model_validator

from doppel_ray.core.schema import Section


def label(value: Any) -> str:
    """A searched value, short enough for a name or a table: `0.05`, `fade+time_mask`, `synthetic 0.7`."""
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
    """Values that a search may take: exactly one of these."""

    grid: tuple[Any, ...] | None = None
    """Every one of these values, in combination with every other grid."""
    choice: tuple[Any, ...] | None = None
    """One of these, at random."""
    uniform: tuple[float, float] | None = None
    """A number between these."""
    loguniform: tuple[float, float] | None = None
    """A number between these, uniform in its logarithm."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the one before the second."""

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
        """YAML takes 1e-3 for text; a number is meant."""
        return None if values is None else tuple(_number(value) for value in values)

    @property
    def kind(self) -> str:
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    def examples(self) -> tuple[Any, ...]:
        """All values, or the ends of the range: what must be allowed for the whole space to be."""
        if self.randint is not None:
            return (self.randint[0], self.randint[1] - 1)
        return tuple(getattr(self, self.kind))


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
