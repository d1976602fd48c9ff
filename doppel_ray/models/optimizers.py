"""Optimizers, learning-rate schedules, and the running average of the weights."""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from doppel_ray.core.schema import Section

LARS_EPSILON = 1e-8
SGD_REFERENCE = 256
"""Pairs of the batch that the published learning rate of SGD is meant for."""


class OptimConfig(Section):
    """Optimizer, learning rate and weight averaging."""

    kind: Literal["sgd", "adam", "adamw", "lars"] = "sgd"
    """Optimizer. sgd: as in the paper. adam: Kingma and Ba (2015). adamw: Adam with decoupled weight decay (Loshchilov
    and Hutter, 2019). lars: layer-wise scaling of the steps of `base` (You et al., 2017); CLAR uses it with adam."""
    base: Literal["sgd", "adam"] = "sgd"
    """lars: optimizer whose steps are scaled."""
    trust: float = Field(default=0.02, gt=0.0)
    """lars: trust coefficient, the size of a step relative to the norm of the weights; CLAR's library has 0.02."""
    lr: float = Field(default=0.12, gt=0.0)
    """Learning rate for batches of `reference_batch` pairs; multiplied by train.batch_size / reference_batch."""
    reference_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Batch size that `lr` refers to; null: use `lr` without scaling. auto: 256 for sgd, as published, and null for the
    others, whose steps do not grow with the gradient."""
    weight_decay: float = Field(default=1e-6, ge=0.0)
    """Weight decay."""
    exclude_norm_and_bias: bool | None = None
    """Whether biases and the parameters of normalisation layers have no weight decay; null: true for lars, else
    false."""
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Momentum of sgd, also as the base of lars."""
    schedule: Literal["constant", "multistep", "cosine"] = "multistep"
    """How the learning rate changes. constant: it does not. multistep: multiplied by `gamma` at each of `milestones`,
    as in the paper. cosine: decays to 0."""
    milestones: tuple[float, ...] = (0.775, 0.85, 0.925)
    """multistep: fractions of the run at which the learning rate drops, in increasing order."""
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)
    """multistep: factor of the learning rate at each milestone."""
    warmup: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of the run in which the learning rate rises linearly from 0."""
    ema: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Decay per step of a moving average of the weights, such as 0.999; checkpoints then contain the average, with its
    own batch-norm statistics. null: no average."""

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.0 < a < b for a, b in zip(milestones, (*milestones[1:], 1.0), strict=True)):
            raise ValueError("expected shares of the run between 0 and 1, each above the one before")
        return milestones

    def build(self, parameters: Iterable[nn.Parameter], batch_size: int) -> torch.optim.Optimizer:
        """Return the optimizer; its `state_dict` is all that it needs to resume.

        Args:
            parameters: the model's. Those of fewer than two dimensions are its biases and the scales and shifts of its
                norms.
            batch_size: pairs of a batch over all workers.
        """
        reference = self.reference_batch
        if reference == "auto":
            reference = SGD_REFERENCE if self.kind == "sgd" else None
        lr = self.lr * (batch_size / reference if reference else 1.0)
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
        """Return the factor of the learning rate at `step` of a run of `steps`."""
        progress = step / steps
        if progress < self.warmup:
            return (step + 1) / (self.warmup * steps + 1)
        if self.schedule == "multistep":
            return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * (progress - self.warmup) / (1.0 - self.warmup)))
        return 1.0


def lars(optimizer: torch.optim.Optimizer, trust: float) -> torch.optim.Optimizer:
    """Scale learning rates layer by layer before any optimizer's step (You et al. 2017, arXiv 1708.03888, section 5).

    Each parameter's gradient, weight decay included, is multiplied by min(trust · ‖w‖ / (‖g‖ + decay · ‖w‖) / lr, 1)
    before the optimizer sees it: with plain SGD no parameter moves by more than `trust` of its own norm in a step, nor
    by more than `lr` times its gradient. That is `LARSWrapper` of PyTorch Lightning Bolts, which CLAR uses, at its
    defaults (trust 0.02, clipped); like it, this scales biases and norms as well, and leaves a parameter alone whose
    norm or gradient is 0.

    Adam divides a gradient by its own running size, so around Adam, as in CLAR, the ratio all but cancels: a step moves
    every weight by up to `lr`, which at CLAR's lr of 1.0 only batch norm, which divides the weights' size out again,
    makes bearable.

    Args:
        optimizer: SGD or Adam; its step is changed, its state is not, so that its `state_dict` is complete.
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


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return a running average of a model's weights: a model of its own, `.module`.

    `update_parameters(model)` takes in the weights after each step of the optimizer. The first update copies them;
    after n updates the decay is min(decay, (1 + n) / (10 + n)), so that the average of a short run forgets its
    early weights. Its buffers are copies of the model's until `torch.optim.swa_utils.update_bn` computes its own: the
    statistics of batch norms belong to the weights in front of them.

    Args:
        model: what is averaged.
        decay: share of the average that an update keeps.
    """

    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        weight = 1.0 - min(decay, (1 + n) / (10 + n))
        for old, new in zip(average, current, strict=True):
            old.lerp_(new, weight)

    return AveragedModel(model, multi_avg_fn=update)


def average_state(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the `state_dict` of an average as `averaged` makes it, also of one that an older version saved."""
    if "average" not in saved:
        return saved
    modules = {f"module.{name}": value for name, value in saved["average"].items()}
    return {"n_averaged": torch.tensor(saved["updates"]), **modules}
