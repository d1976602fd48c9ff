"""Draws: the prior over parameters, and the two perturbations that make a pair of doppelgangers.

Cherep and Singh, "Contrastive Learning from Synthetic Audio Doppelgängers", ICLR 2025 (arXiv 2406.05923).
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from doppel_ray.core import rng
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.rng import Stream
from doppel_ray.synth.parameters import GROUPS, Parameter

SMALLEST = 1e-6
"""A perturbed parameter is clipped to [SMALLEST, 1], as published."""


def check_delta(delta: float | Mapping[str, float]) -> float | dict[str, float]:
    """Return `delta` if it is a number in [0, 1], or one for some of the groups; otherwise raise `ConfigError`."""
    values = dict(delta) if isinstance(delta, Mapping) else {"": delta}
    for group, value in values.items():
        name = f"delta of {group}" if group else "delta"
        if group and group not in GROUPS:
            near = difflib.get_close_matches(group, GROUPS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{name}: there is no such group of parameters; groups are {', '.join(GROUPS)}{hint}")
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} is {value}: it must lie in [0, 1]")
    return values if isinstance(delta, Mapping) else delta


Delta = Annotated[float | dict[str, float], AfterValidator(check_delta)]
"""Strength of the perturbation: one δ for all parameters, or one per group (0 for groups that are not named)."""

Spread = float | Tensor | Mapping[str, float | Tensor]
"""δ of a batch: a number or one for each row, `(n,)`, for all parameters or for each group."""


class Ranges:
    """The parameters of a synthesizer side by side: conversions and draws for all of them at once."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.names = tuple(parameter.name for parameter in parameters)
        self._minimum = torch.tensor([p.minimum for p in parameters], dtype=torch.float64)
        self._maximum = torch.tensor([p.maximum for p in parameters], dtype=torch.float64)
        self._curve = torch.tensor([p.curve for p in parameters], dtype=torch.float64)
        self._symmetric = torch.tensor([p.symmetric for p in parameters])

    def to_human(self, theta: Tensor) -> Tensor:
        """Return values in human units, float64 `(n, P)`, of knobs in [0, 1], `(n, P)`."""
        low, high, curve, symmetric = self._on(theta.device)
        knob = theta.to(torch.float64)
        distance = 2.0 * knob - 1.0
        bent = torch.where(symmetric, distance.abs(), knob) ** (1.0 / curve)
        return low + (high - low) * torch.where(symmetric, 0.5 + 0.5 * torch.sign(distance) * bent, bent)

    def from_human(self, values: Tensor) -> Tensor:
        """Return knobs in [0, 1], float32 `(n, P)`, of values in human units, `(n, P)`."""
        low, high, _, _ = self._on(values.device)
        return self._bend((values.to(torch.float64) - low) / (high - low))

    def prior(self, seed: int, indices: Tensor) -> Tensor:
        """Draw knobs `(n, P)`, float32: each parameter uniform over its range in human units."""
        return self._bend(rng.uniform(seed, indices, Stream.PARAMETERS, len(self.parameters)).to(torch.float64))

    def views(self, theta: Tensor, seed: int, indices: Tensor, delta: Spread) -> list[Tensor]:
        """Return two perturbations of `theta`, clip(θ + δ·N(0, 1)), with independent draws.

        `delta` is a number or one for each row, `(n,)`; or a mapping of parameter groups to these.
        """
        groups = delta if isinstance(delta, Mapping) else dict.fromkeys(GROUPS, delta)
        check_delta({name: value for name, value in groups.items() if not isinstance(value, Tensor)})
        columns = [
            torch.as_tensor(groups.get(p.group, 0.0), dtype=torch.float32, device=theta.device).expand(len(theta))
            for p in self.parameters
        ]
        scale = torch.stack(columns, dim=1)
        draws = (rng.normal(seed, indices, stream, len(columns)) for stream in (Stream.FIRST_VIEW, Stream.SECOND_VIEW))
        return [(theta + scale * draw).clamp(SMALLEST, 1.0) for draw in draws]

    def _bend(self, uniform: Tensor) -> Tensor:
        """Return the knob of a place in the human range, float64 in [0, 1]."""
        _, _, curve, symmetric = self._on(uniform.device)
        distance = 2.0 * uniform - 1.0
        bent = torch.where(symmetric, distance.abs(), uniform) ** curve
        return torch.where(symmetric, 0.5 + 0.5 * torch.sign(distance) * bent, bent).to(torch.float32)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tables = (self._minimum, self._maximum, self._curve, self._symmetric)
        low, high, curve, symmetric = (table.to(device) for table in tables)
        return low, high, curve, symmetric
