"""Contrastive objectives over the embeddings of all workers.

Every worker gathers the others' embeddings with their gradients and computes the same loss of the whole batch. The
gather's backward sums over the workers what each worker's copy of the loss asks of an embedding, so each local gradient
is `workers` times its share; DDP's mean over workers then makes the gradient of the whole batch's loss, exactly.
"""

import math
from typing import Literal

import torch
import torch.distributed
import torch.distributed.nn.functional
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from doppel_ray.section import Section


class ObjectiveConfig(Section):
    """What training minimises."""

    kind: Literal["alignment_uniformity", "nt_xent"] = "alignment_uniformity"
    """alignment_uniformity: Wang and Isola (2020), as the paper. nt_xent: SimCLR's and CLAR's."""
    alpha: float = Field(default=2.0, gt=0.0)
    """Power of the distance in the alignment term (alignment_uniformity)."""
    t: float = Field(default=2.0, gt=0.0)
    """Scale of the Gaussian potential in the uniformity term (alignment_uniformity)."""
    alignment_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the alignment term (alignment_uniformity)."""
    uniformity_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the uniformity term (alignment_uniformity)."""
    temperature: float = Field(default=0.5, gt=0.0)
    """Temperature of the softmax (nt_xent); CLAR's is 0.5."""

    def build(self) -> "Objective":
        return Objective(self)


def gather(x: Tensor) -> Tensor:
    """Rows of every worker, in rank order, with gradients; `x` itself without a process group."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return x
    return torch.cat(torch.distributed.nn.functional.all_gather(x.contiguous()))


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance between the two views, to the power α (Wang and Isola 2020, equation 4).

    Args:
        x, y: (batch, size), L2-normalised.
    """
    return (x - y).norm(dim=1).pow(alpha).mean()


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Logarithm of the mean Gaussian potential over all pairs of a view (Wang and Isola 2020, equation 5).

    Near 0 the embeddings have collapsed; spread over the sphere it is near -2 t.
    """
    # Unit vectors: ‖a - b‖² = 2 - 2 a·b. The diagonal's ones must not enter the sum, not even to be subtracted again:
    # beside them small potentials lose their digits.
    n = x.shape[0]
    potential = torch.exp(-t * (2.0 - 2.0 * (x @ x.T)).clamp(min=0.0))
    itself = torch.eye(n, dtype=torch.bool, device=x.device)
    return torch.log(potential.masked_fill(itself, 0.0).sum() / (n * (n - 1)))


def nt_xent(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy over 2 n views (Chen et al. 2020, equation 1).

    Args:
        x, y: (n, size), L2-normalised; row k of `x` and of `y` are a positive pair, all others are negatives.
    """
    n = x.shape[0]
    z = torch.cat([x, y])
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z.device), -math.inf)
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, positive)


def effective_rank(x: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli 2007); 1 when collapsed."""
    singular = torch.linalg.svdvals(x.double() - x.double().mean(dim=0))
    p = singular / singular.sum().clamp(min=1e-12)
    return torch.exp(-(p * torch.log(p.clamp(min=1e-12))).sum())


class Objective:
    """Loss of two views' embeddings, over all workers."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its telemetry.

        Args:
            x, y: (local batch, size), this worker's embeddings of the two views, not normalised.

        Returns:
            The scalar loss of the whole batch, and detached `alignment` and `uniformity`.
        """
        c = self.config
        x, y = gather(torch.cat([F.normalize(x.float()), F.normalize(y.float())], dim=1)).chunk(2, dim=1)
        align = alignment(x, y, c.alpha)
        uniform = (uniformity(x, c.t) + uniformity(y, c.t)) / 2
        if c.kind == "nt_xent":
            loss = nt_xent(x, y, c.temperature)
        else:
            loss = c.alignment_weight * align + c.uniformity_weight * uniform
        return loss, {"alignment": align.detach(), "uniformity": uniform.detach()}
