"""Contrastive objectives over the embeddings of all workers.

Every worker gathers the others' embeddings with their gradients and computes the same loss of the whole batch. The
gather's backward sums over the workers the gradients of each worker's copy of the loss, so each local gradient
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

from doppel_ray.core.schema import Section

UNLABELLED = -1
"""The label of a pair that has none."""
COLLAPSED_UNIFORMITY = -0.01
"""Uniformity (t = 2) above which an embedding has collapsed: unit vectors within 0.07 of each other, root mean square.
Untrained encoders, whose embeddings are a narrow cone, begin at about -0.7 on the quickstart's pairs."""
COLLAPSED_RANK = 1.05
"""Effective rank below which an embedding has collapsed onto a line."""


class ObjectiveConfig(Section):
    """The loss that training minimises."""

    kind: Literal["alignment_uniformity", "nt_xent", "cross_entropy", "joint"] = "alignment_uniformity"
    """alignment_uniformity: Wang and Isola (2020), as in the paper. nt_xent: SimCLR's contrastive loss.
    cross_entropy: classification of labels (supervised CLAR). joint: nt_xent plus cross_entropy (CLAR)."""
    alpha: float = Field(default=2.0, gt=0.0)
    """alignment_uniformity: power of the distance in the alignment term."""
    t: float = Field(default=2.0, gt=0.0)
    """alignment_uniformity: scale of the Gaussian potential in the uniformity term."""
    alignment_weight: float = Field(default=1.0, ge=0.0)
    """alignment_uniformity: weight of the alignment term."""
    uniformity_weight: float = Field(default=1.0, ge=0.0)
    """alignment_uniformity: weight of the uniformity term."""
    temperature: float = Field(default=0.5, gt=0.0)
    """nt_xent, joint: temperature of the softmax; CLAR has 0.5."""
    cross_entropy_weight: float = Field(default=1.0, ge=0.0)
    """joint: weight of each view's cross-entropy relative to NT-Xent."""

    @property
    def needs_labels(self) -> bool:
        """Whether the objective needs labels, and the model a classifier."""
        return self.kind in ("cross_entropy", "joint")

    def build(self) -> "Objective":
        return Objective(self)


def gather(x: Tensor) -> Tensor:
    """Return the rows of every worker, in rank order, with gradients; `x` itself without a process group."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return x
    return torch.cat(torch.distributed.nn.functional.all_gather(x.contiguous()))


def gather_integers(integers: Tensor) -> Tensor:
    """Return the labels or identities (n,) of every worker, in rank order."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return integers
    found = [torch.empty_like(integers) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, integers.contiguous())
    return torch.cat(found)


def equal_pairs(ids: Tensor) -> Tensor:
    """Return which of n pairs are the same one, (n, n) bool: no negatives of each other. The diagonal is true."""
    return ids.unsqueeze(0) == ids.unsqueeze(1)


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Return the mean distance between the two views, to the power α (Wang and Isola 2020, equation 4).

    Args:
        x, y: (batch, size), L2-normalised.
    """
    return (x - y).norm(dim=1).pow(alpha).mean()


def uniformity(x: Tensor, t: float = 2.0, equal: Tensor | None = None) -> Tensor:
    """Return the logarithm of the mean Gaussian potential over all pairs of a view (Wang and Isola, equation 5).

    Near 0 the embeddings have collapsed; spread over the sphere it is near -2 t.

    Args:
        x: (n, size), L2-normalised.
        t: scale of the potential.
        equal: (n, n) bool, as `equal_pairs` returns it: rows that are left out of the mean; None: the diagonal alone.
            Where all rows are equal, the result is 0 with gradients of 0.
    """
    # Unit vectors: ‖a - b‖² = 2 - 2 a·b. The diagonal's ones must not enter the sum, not even to be subtracted again:
    # beside them small potentials lose their digits.
    n = x.shape[0]
    potential = torch.exp(-t * (2.0 - 2.0 * (x @ x.T)).clamp(min=0.0))
    equal = torch.eye(n, dtype=torch.bool, device=x.device) if equal is None else equal
    different = n * n - equal.sum()
    total = potential.masked_fill(equal, 0.0).sum() + (different == 0)
    return torch.log(total / different.clamp(min=1))


def nt_xent(x: Tensor, y: Tensor, temperature: float, equal: Tensor | None = None) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy over 2 n views (Chen et al. 2020, equation 1).

    Args:
        x, y: (n, size), L2-normalised; row k of `x` and of `y` are a positive pair, all others are negatives.
        temperature: what similarities are divided by.
        equal: (n, n) bool, as `equal_pairs` returns it: rows whose views are no negatives of each other; None: the
            diagonal alone.
    """
    n = x.shape[0]
    z = torch.cat([x, y])
    logits = z @ z.T / temperature
    equal = torch.eye(n, dtype=torch.bool, device=z.device) if equal is None else equal
    positive = torch.arange(2 * n, device=z.device).roll(n)
    left_out = equal.repeat(2, 2)
    left_out[torch.arange(2 * n, device=z.device), positive] = False
    return F.cross_entropy(logits.masked_fill(left_out, -math.inf), positive)


def effective_rank(x: Tensor) -> Tensor:
    """Return the exponential of the singular values' entropy (Roy and Vetterli 2007), 1 for a collapsed embedding."""
    singular = torch.linalg.svdvals(x.double() - x.double().mean(dim=0))
    p = singular / singular.sum().clamp(min=1e-12)
    return torch.exp(-(p * torch.log(p.clamp(min=1e-12))).sum())


def collapsed(uniformity: float, rank: float) -> str | None:
    """Return how an embedding has collapsed, or None.

    Both numbers are needed: a cloud around one point has a uniformity near 0 at any rank, and two opposite points have
    a rank of 1 at a uniformity of -0.7.

    Args:
        uniformity: of normalised embeddings, at the default t = 2.
        rank: `effective_rank` of the embeddings.
    """
    if uniformity > COLLAPSED_UNIFORMITY:
        return f"uniformity is {uniformity:.2g}, above {COLLAPSED_UNIFORMITY}: the embeddings are all but one point"
    if rank < COLLAPSED_RANK:
        return f"effective rank is {rank:.3g}, below {COLLAPSED_RANK}: the embeddings lie on one line"
    return None


class Objective:
    """Loss of two views' embeddings and, where there are labels, of their class logits, over all workers."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms.

        Args:
            x, y: (n, size), this worker's embeddings of the two views, not normalised.
            logits: (2 n, classes), the first views' first; for `cross_entropy` and `joint`.
            labels: (n,) int64 classes of the pairs, UNLABELLED (-1) for those that have none; likewise.
            ids: (n,) int64 identities of the pairs: those of one identity, on any worker, are no negatives of each
                other; None: all pairs are different.

        Returns:
            The scalar loss of the whole batch, and, detached: `alignment` and `uniformity`; `nt_xent` where it is part
            of the loss; `cross_entropy` and `accuracy` of the labelled views where there are any.

        Raises:
            ValueError: the kind needs labels, and logits or labels are missing.
        """
        c = self.config
        x, y = gather(torch.cat([F.normalize(x.float()), F.normalize(y.float())], dim=1)).chunk(2, dim=1)
        equal = None if ids is None else equal_pairs(gather_integers(ids))
        align = alignment(x, y, c.alpha)
        uniform = (uniformity(x, c.t, equal) + uniformity(y, c.t, equal)) / 2
        terms = {"alignment": align, "uniformity": uniform}
        loss = c.alignment_weight * align + c.uniformity_weight * uniform
        if c.kind in ("nt_xent", "joint"):
            loss = terms["nt_xent"] = nt_xent(x, y, c.temperature, equal)
        if c.needs_labels:
            if logits is None or labels is None:
                raise ValueError(f"objective.kind is {c.kind!r}, which needs class logits and labels")
            entropy, accuracy = self._classify(logits, labels)
            # CLAR adds the two views' means up, where supervised CLAR sees one view: twice and once our mean over both.
            loss = entropy if c.kind == "cross_entropy" else loss + 2.0 * c.cross_entropy_weight * entropy
            if accuracy is not None:
                terms |= {"cross_entropy": entropy, "accuracy": accuracy}
        return loss, {name: term.detach() for name, term in terms.items()}

    def _classify(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return mean cross-entropy and accuracy of the labelled views of all workers; 0 and None if there are none."""
        # A pair's two rows of logits travel side by side, so that ranks stay in order within each view.
        first, second = gather(torch.cat(logits.float().chunk(2), dim=1)).chunk(2, dim=1)
        logits, labels = torch.cat([first, second]), gather_integers(labels).repeat(2)
        labelled = labels != UNLABELLED
        count = labelled.sum()
        # Without labels this is 0 with gradients of 0, as DDP waits for every parameter's.
        entropy = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum") / count.clamp(min=1)
        right = (logits.argmax(dim=1) == labels)[labelled]
        return entropy, right.float().mean() if count else None
