"""Which pairs are synthetic and which are recordings."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.core.schema import Section
from doppel_ray.data.recordings.views import RecordingsConfig

Kind = Literal["synthetic", "recordings"]

MIX_STREAM = 2**20 + 2
"""Stream of the draw of where the pattern begins."""

_BITS = 20
"""Weights are rounded to 1 in 2**20."""


class SourceConfig(Section):
    """Where pairs come from: the synthesizer, recordings, or both."""

    mix: dict[Kind, Annotated[float, Field(ge=0.0)]] = Field(default={"synthetic": 1.0})
    """Weight of each source of pairs; {synthetic: 0.7, recordings: 0.3} takes 3 of 10 pairs from recordings."""
    recordings: RecordingsConfig = RecordingsConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "SourceConfig":
        if not any(weight > 0 for weight in self.mix.values()):
            raise ValueError(f"mix is {self.mix}; expected a weight above 0 for synthetic, recordings or both")
        if len(self.mix) == 1 and set(self.mix.values()) != {1.0}:  # `--source.mix.recordings 0.3`: of what?
            [(kind, weight)] = self.mix.items()
            other = "synthetic" if kind == "recordings" else "recordings"
            raise ValueError(
                f"mix has {kind}: {weight} alone; give the weight of {other} too, 0 if there is to be none"
            )
        return self

    @property
    def share(self) -> float:
        """Share of the pairs that are recordings, from 0 to 1."""
        return self.mix.get("recordings", 0.0) / sum(self.mix.values())


def rank(mix: Mapping[Kind, float], seed: int, indices: Tensor) -> Tensor:
    """Return how many recordings come before each index: (n,) int64.

    That is the index that `Recordings.views` takes: whatever their share, each recording comes once a pass. `indices`
    are from 0 to 2**62.

    Recordings are spread evenly, as the dots of a Beatty sequence floor(index x share + phase): any run of m indices
    holds m x share of them to within one. Draws would make some batches hold half as many again as others, and their
    count before an index would need a sum from the beginning.
    """
    weight = mix.get("recordings", 0.0) / sum(mix.values())
    steps = round(weight * 2**_BITS)
    if 0.0 < weight < 1.0:  # neither source disappears, however small its share
        steps = min(max(steps, 1), 2**_BITS - 1)
    phase = int(rng.uniform(seed, torch.zeros(1, dtype=torch.int64), MIX_STREAM, 1).item() * 2**_BITS)
    whole, rest = indices >> _BITS, indices & (2**_BITS - 1)  # the product would not fit into 64 bits
    return whole * steps + ((rest * steps + phase) >> _BITS)


def choose(mix: Mapping[Kind, float], seed: int, indices: Tensor) -> Tensor:
    """Return which of the pairs `indices` (n,) are recordings: (n,) bool, a function of seed and index alone."""
    return rank(mix, seed, indices + 1) > rank(mix, seed, indices)
