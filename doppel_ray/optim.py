"""Optimizers, learning-rate schedules, and the running average of the weights."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from doppel_ray.section import Section

LARS_EPSILON = 1e-8


class OptimConfig(Section):
    """How the weights move."""

    kind: Literal["sgd", "adam", "adamw", "lars"] = "sgd"
    """sgd: the paper's, without momentum. adam: Kingma and Ba (2015). adamw: Loshchilov and Hutter (2019), with the
    weight decay apart from the gradient. lars: You et al. (2017), around `base`; CLAR's is around Adam."""
    base: Literal["sgd", "adam"] = "sgd"
    """What takes the step that LARS has scaled (lars)."""
    trust: float = Field(default=0.02, gt=0.0)
    """Share of its own norm that a weight may move in a step of the base (lars); CLAR's library has 0.02."""
    lr: float = Field(default=0.12, gt=0.0)
    """Learning rate at `reference_batch` pairs; multiplied by the real ratio train.batch_size / reference_batch."""
    reference_batch: int | None = Field(default=256, ge=1)
    """Batch size that `lr` is meant for; null: use `lr` as it is."""
    weight_decay: float = Field(default=1e-6, ge=0.0)
    """Weight decay."""
    exclude_norm_and_bias: bool | None = None
    """Leave biases and the scales and shifts of norms out of the weight decay; null: lars does, the others don't."""
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Momentum (sgd, and lars around it)."""
    schedule: Literal["constant", "multistep", "cosine"] = "multistep"
    """multistep: x `gamma` at each of `milestones`, as the paper. cosine: down to 0."""
    milestones: tuple[float, ...] = (0.775, 0.85, 0.925)
    """Shares of the run at which the learning rate drops, rising (multistep)."""
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)
    """What the learning rate is multiplied by at each milestone (multistep)."""
    warmup: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the run over which the learning rate climbs linearly from 0."""
    ema: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Decay per step of a running average of the weights, such as 0.999; null: none is kept."""

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.0 < a < b for a, b in zip(milestones, (*milestones[1:], 1.0), strict=True)):
            raise ValueError("expected shares of the run between 0 and 1, each above the one before")
        return milestones

    def build(self, parameters: Iterable[nn.Parameter], batch_size: int) -> torch.optim.Optimizer:
        """The optimizer; all that it must remember to go on is in its `state_dict`.

        Args:
            parameters: the model's. Those of fewer than two dimensions are its biases and the scales and shifts of its
                norms.
            batch_size: pairs of a batch over all workers.
        """
        lr = self.lr * (batch_size / self.reference_batch if self.reference_batch else 1.0)
        groups = self._groups(list(parameters))
        if self.kind == "adamw":
            return torch.optim.AdamW(groups, lr=lr, weight_decay=self.weight_decay)
        base = self.base if self.kind == "lars" else self.kind
        optimizer: torch.optim.Optimizer
        if base == "adam":
            optimizer = torch.optim.Adam(groups, lr=lr, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.SGD(groups, lr=lr, weight_decay=self.weight_decay, momentum=self.momentum)
        return lars(optimizer, self.trust) if self.kind == "lars" else optimizer

    def _groups(self, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        exclude = self.kind == "lars" if self.exclude_norm_and_bias is None else self.exclude_norm_and_bias
        if not exclude:
            return [{"params": parameters}]
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim < 2]
        return [{"params": weights}, {"params": others, "weight_decay": 0.0}]

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of a run of `steps`."""
        progress = step / steps
        if progress < self.warmup:
            return (step + 1) / (self.warmup * steps + 1)
        if self.schedule == "multistep":
            return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * (progress - self.warmup) / (1.0 - self.warmup)))
        return 1.0


def lars(optimizer: torch.optim.Optimizer, trust: float) -> torch.optim.Optimizer:
    """Layer-wise adaptive rate scaling in front of any optimizer's step (You et al. 2017, arXiv 1708.03888, section 5).

    Each parameter's gradient, weight decay included, is multiplied by min(trust · ‖w‖ / (‖g‖ + decay · ‖w‖) / lr, 1)
    before the optimizer sees it: with plain SGD no parameter moves by more than `trust` of its own norm in a step, nor
    by more than `lr` times its gradient. That is `LARSWrapper` of PyTorch Lightning Bolts, which CLAR uses, at its
    defaults (trust 0.02, clipped); like it, this scales biases and norms as well, and leaves a parameter alone whose
    norm or gradient is 0.

    Adam divides a gradient by its own running size, so around Adam, as in CLAR, the ratio all but cancels: a step moves
    every weight by up to `lr`, which at CLAR's lr of 1.0 only batch norm, which divides the weights' size out again,
    makes bearable.

    Args:
        optimizer: SGD or Adam; its step is changed, its state is not, so that its `state_dict` is all there is to keep.
        trust: η of the paper.

    Returns:
        The same optimizer.
    """
    for group in optimizer.param_groups:
        # Under a name of our own: the optimizer would add its own decay after the gradient has been scaled.
        group["lars_weight_decay"], group["weight_decay"] = group["weight_decay"], 0.0

    @torch.no_grad()
    def scale(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            decay, lr = group["lars_weight_decay"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                weight, gradient = p.norm(), p.grad.norm()
                ratio = (trust * weight / (gradient + decay * weight + LARS_EPSILON) / lr).clamp(max=1.0)
                moves = (weight > 0) & (gradient > 0)
                p.grad.add_(p * moves, alpha=decay).mul_(torch.where(moves, ratio, 1.0))

    optimizer.register_step_pre_hook(scale)
    return optimizer


class Ema:
    """Running average of a model's weights and of its norms' statistics.

    The decay starts low, as min(decay, (1 + n) / (10 + n)) after n updates, so that the average of a short run does not
    hold on to the initial weights.

    Args:
        model: its present weights start the average.
        decay: share of the average that an update keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights, once after each step of the optimizer."""
        weight = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, weight)
            else:
                self.average[name].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model has the average for its weights inside, and its own again afterwards, bit for bit."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and a number, which `torch.load(weights_only=True)` reads."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average; it must be of the same model."""
        average: dict[str, Tensor] = state["average"]
        if average.keys() != self.average.keys():
            strange = sorted(average.keys() ^ self.average.keys())
            raise ValueError(f"the average is of another model: {', '.join(strange[:3])} on one side only")
        self.updates = state["updates"]
        for name, value in average.items():
            self.average[name].copy_(value)
