"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from doppel_ray.section import Section

MILESTONES = (0.775, 0.85, 0.925)


class OptimConfig(Section):
    """How the weights move."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """sgd: the paper's, without momentum. adamw: Loshchilov and Hutter (2019)."""
    lr: float = Field(default=0.12, gt=0.0)
    """Learning rate at `reference_batch` pairs; multiplied by the real ratio train.batch_size / reference_batch."""
    reference_batch: int | None = Field(default=256, ge=1)
    """Batch size that `lr` is meant for; null: use `lr` as it is."""
    weight_decay: float = Field(default=1e-6, ge=0.0)
    """Weight decay."""
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Momentum (sgd)."""
    schedule: Literal["constant", "multistep", "cosine"] = "multistep"
    """multistep: x 0.1 at 77.5, 85 and 92.5 % of the run, as the paper. cosine: down to 0."""
    warmup: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the run over which the learning rate climbs linearly from 0."""

    def build(self, parameters: Iterable[nn.Parameter], batch_size: int) -> torch.optim.Optimizer:
        lr = self.lr * (batch_size / self.reference_batch if self.reference_batch else 1.0)
        if self.kind == "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=lr, weight_decay=self.weight_decay, momentum=self.momentum)

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of a run of `steps`."""
        progress = step / steps
        if progress < self.warmup:
            return (step + 1) / (self.warmup * steps + 1)
        if self.schedule == "multistep":
            return 0.1 ** sum(progress >= milestone for milestone in MILESTONES)
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * (progress - self.warmup) / (1.0 - self.warmup)))
        return 1.0
