"""What a sweep varies and how it is steered."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from doppel_ray.section import Section

PAUSING = ("hyperband", "pbt")
"""Schedulers whose trials wait for each other, so that all must fit side by side."""
OPTUNA = "doppel_ray[optuna]"
MUTABLE = ("pairs.delta", "pairs.layers", "source.mix", "objective.", "optim.", "augment", "train.clip")
"""Keys, or how they begin, that a trial may be given other values of while it runs."""


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


class TuneConfig(Section):
    """How the trials of a sweep are chosen, compared and stopped."""

    metric: str = "probe/factors/score_valid"
    """What trials and checkpoints are chosen by: a column of their rows, a validation score such as
    probe/esc10/accuracy_valid, or loss. Reported is the test score of what it has chosen, probe/esc10/accuracy."""
    mode: Literal["max", "min"] = "max"
    """Whether more of the metric is better."""
    scheduler: Literal["fifo", "asha", "median", "hyperband", "pbt"] = "asha"
    """fifo: every trial runs to its end. asha: the weaker trials are stopped early (Li et al., 2020). median: those
    whose best is below the median of the others' means are (Golovin et al., 2017). hyperband: brackets of trials wait
    for each other, and the weaker part of each is stopped (Li et al., 2018). pbt: every `interval` epochs the weakest
    go on from a checkpoint of the strongest, with other values (population-based training, Jaderberg et al., 2017)."""
    grace: int = Field(default=1, ge=1)
    """Epochs that every trial may run before it can be stopped or changed (asha, median, pbt)."""
    reduction: float = Field(default=2.0, gt=1.0)
    """Of so many trials that reach a rung one goes on (asha, hyperband)."""
    interval: int = Field(default=1, ge=1)
    """Epochs between changes (pbt)."""
    quantile: float = Field(default=0.25, gt=0.0, le=0.5)
    """Share of the trials that are weakest, and share that are strongest (pbt)."""
    searcher: Literal["random", "optuna"] = "random"
    """random: grids in full, everything else drawn at random from run.seed. optuna: values that did well guide the
    next ones (tree-structured Parzen estimators; the extra `optuna`)."""
    samples: int = Field(default=1, ge=1)
    """Times that the whole grid is run, with fresh random draws each time; trials, where there is no grid."""
    repeats: int = Field(default=1, ge=1)
    """Seeds that each point of the search is run with: run.seed and those after it. Reported as mean and interval."""
    minutes: float | None = Field(default=None, gt=0.0)
    """Budget of time: after so many minutes no trial starts, and those that run end with their next row."""
    pairs: int | None = Field(default=None, ge=1)
    """Budget of pairs, of all trials together: once they are trained no trial starts, and those that run end with
    their next row."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials side by side, at most; null: as many as fit."""
    max_failures: int = Field(default=3, ge=0)
    """Times that a trial that failed, or whose node was lost, is started again from its last checkpoint."""
    log_to: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Trackers that are told every row, beside TensorBoard (the extras `mlflow` and `wandb`); servers and keys come
    from their own environment variables."""
    log_project: str | None = None
    """What the trackers call the experiment or project; null: the name of the run's folder."""

    def check(self, search: Mapping[str, Space]) -> None:
        """Refuse what this way of searching cannot do with a space.

        Raises:
            ValueError: names the key.
        """
        if self.repeats > 1 and "run.seed" in search:
            raise ValueError(
                f"repeats is {self.repeats}, which gives each point seeds of its own, but search.run.seed does"
            )
        if self.repeats > 1 and (self.searcher == "optuna" or self.scheduler == "pbt"):
            steered = "tune.searcher optuna" if self.searcher == "optuna" else "tune.scheduler pbt"
            raise ValueError(
                f"repeats is {self.repeats}, but {steered} gives each trial values that no other has; use 1"
            )
        for key, space in search.items():
            if self.searcher == "optuna" and space.kind == "grid":
                raise ValueError(f"search.{key} is a grid, which tune.searcher optuna cannot guide; write choice")
            if self.scheduler == "pbt" and not key.startswith(MUTABLE):
                raise ValueError(
                    f"search.{key}: tune.scheduler pbt changes values while trials run, which only "
                    f"{', '.join(name.rstrip('.') for name in MUTABLE)} allow"
                )
        if self.scheduler == "pbt" and self.searcher == "optuna":
            raise ValueError("tune.scheduler pbt chooses values itself; tune.searcher must be random")
