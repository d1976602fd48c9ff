"""`data` and `generators`: how the stream of pairs is made and how it travels."""

from typing import Literal

from pydantic import Field, model_validator

from doppel_ray.core.schema import Range, Section


class DataConfig(Section):
    """How the stream travels from the generators to the train workers."""

    block_pairs: int = Field(default=256, ge=1)
    """Pairs per block, at most: a generator's unit of work. Made smaller to divide a worker's share of the batch."""
    prefetch_batches: int = Field(default=2, ge=0)
    """Batches that a train worker fetches ahead."""
    buffer_mb: int = Field(default=256, ge=16)
    """Features that may wait in the object store, per trial, in MB; generators pause when it is full."""


class GeneratorConfig(Section):
    """One pool of generators."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where this pool's generators render."""
    actors: Range = (1, 1)
    """How many generators: a number, or a range such as 1..4 within which the pool grows with its work."""
    num_cpus: float = Field(default=1.0, gt=0.0)
    """CPUs of each generator: what it reserves, and (rounded up) the threads it renders with."""
    num_gpus: float = Field(default=0.0, ge=0.0)
    """Share of a GPU of each generator."""

    @model_validator(mode="after")
    def _consistent(self) -> "GeneratorConfig":
        low, high = self.actors
        if not 0 <= low <= high or high == 0:
            raise ValueError(f"actors is {low}..{high}; expected at least 0..1, the first number not above the second")
        if (self.device == "cuda") != (self.num_gpus > 0):
            raise ValueError(
                f"device is {self.device} but num_gpus is {self.num_gpus}; "
                "a cuda generator needs a share of a GPU, a cpu one takes none"
            )
        return self


Pools = tuple[GeneratorConfig, ...]
