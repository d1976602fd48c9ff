"""`data` and `generators`: how pairs are generated and transported."""

from typing import Literal

from pydantic import Field, model_validator

from doppel_ray.core.schema import Gpus, Range, Section


class DataConfig(Section):
    """Transport of pairs from the generators to the train workers."""

    block_pairs: int = Field(default=256, ge=1)
    """Largest number of pairs per block, a generator's unit of work. Lowered so that blocks divide each worker's part
    of the batch."""
    prefetch_batches: int = Field(default=2, ge=0)
    """Number of batches that a train worker fetches in advance."""
    buffer_mb: int = Field(default=256, ge=16)
    """Size of a trial's buffer of generated pairs in Ray's object store, in MB; generators pause while it is full."""


class GeneratorConfig(Section):
    """One pool of generators, the processes that render pairs."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Device to render on."""
    actors: Range = (1, 1)
    """Number of generators: fixed, or a range such as 1..4 in which the pool grows and shrinks with demand."""
    num_cpus: float = Field(default=1.0, gt=0.0)
    """CPUs reserved for each generator; rounded up, also its number of threads."""
    num_gpus: Gpus = 0.0
    """Fraction of a GPU reserved for each generator; 0 for cpu."""

    @model_validator(mode="after")
    def _consistent(self) -> "GeneratorConfig":
        low, high = self.actors
        if not 0 <= low <= high or high == 0:
            raise ValueError(f"actors is {low}..{high}; expected at least 0..1, and the first not above the second")
        if (self.device == "cuda") != (self.num_gpus > 0):
            raise ValueError(
                f"device is {self.device} but num_gpus is {self.num_gpus}; "
                "a cuda generator needs num_gpus above 0, a cpu generator needs num_gpus 0"
            )
        return self


Pools = tuple[GeneratorConfig, ...]
