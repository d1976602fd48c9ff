"""Training one step at a time, without Ray: model, objective, optimizer and running average."""

import copy
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn

from doppel_ray.data.augment import Augment, AugmentConfig
from doppel_ray.data.frontends import FrontendConfig
from doppel_ray.data.pairs import PairsConfig
from doppel_ray.models import checkpoint
from doppel_ray.models.batchnorm import synchronise
from doppel_ray.models.checkpoint import ModelSpec, Position
from doppel_ray.models.model import Model
from doppel_ray.models.objectives import ObjectiveConfig, collapsed, effective_rank, gather
from doppel_ray.models.optimizers import OptimConfig, average_state, averaged
from doppel_ray.synth import SynthConfig

Precision = Literal["auto", "fp32", "bf16"]

SLOWER = 0.5
"""Factor of the learning rate at each rollback."""
STATISTICS_PAIRS = 1024
"""Pairs, the most recent over all workers, for a running average's batch-norm statistics; at least one batch."""


class RunSettings(Protocol):
    """What a learner reads of `run`."""

    @property
    def seed(self) -> int: ...


class TrainSettings(Protocol):
    """What a learner reads of `train`."""

    @property
    def batch_size(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def init(self) -> Path | None: ...
    @property
    def precision(self) -> Precision: ...


class Settings(Protocol):
    """The sections of an experiment that a learner reads."""

    @property
    def run(self) -> RunSettings: ...
    @property
    def synth(self) -> SynthConfig: ...
    @property
    def pairs(self) -> PairsConfig: ...
    @property
    def frontend(self) -> FrontendConfig: ...
    @property
    def augment(self) -> tuple[AugmentConfig, ...]: ...
    @property
    def objective(self) -> ObjectiveConfig: ...
    @property
    def optim(self) -> OptimConfig: ...
    @property
    def train(self) -> TrainSettings: ...
    def plain(self) -> dict[str, Any]: ...


class DivergedError(ArithmeticError):
    """Loss, gradient, embedding or weights are NaN or infinite, or the embedding has collapsed."""


def agreed_precision(asked: Precision, device: torch.device, workers: int) -> Literal["fp32", "bf16"]:
    """Return the precision that all train workers compute in; with more than one, all must take part.

    Args:
        asked: `train.precision`; auto is bf16 if every worker's device has units for it, else fp32.
        device: this worker's.
        workers: how many there are.
    """
    if asked != "auto":
        return asked
    able = torch.tensor(int(has_bf16_units(device)), device=device)
    if workers > 1:
        torch.distributed.all_reduce(able, torch.distributed.ReduceOp.MIN)
    return "bf16" if able.item() else "fp32"


def has_bf16_units(device: torch.device) -> bool:
    """Return whether a device multiplies matrices in bfloat16 itself, faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


class Learner:
    """One worker's part of training.

    Args:
        experiment: its settings.
        classes: names of the classes that the pairs' labels number; empty: no classifier.
        device: where to train.
        workers: train workers; more than one need a process group.
    """

    def __init__(
        self,
        experiment: Settings,
        classes: Sequence[str] = (),
        device: str | torch.device = "cpu",
        workers: int = 1,
    ) -> None:
        self.experiment = experiment
        self.classes = tuple(classes)
        self.device = torch.device(device)
        train = experiment.train
        frontend = experiment.frontend.build(experiment.synth.sample_rate)
        # With `where: trainer` features are computed here, on the trainer's device.
        self.frontend = frontend.to(self.device) if experiment.frontend.where == "trainer" else None
        self.augment = Augment(experiment.augment, experiment.run.seed, experiment.synth.sample_rate)

        model = ModelSpec.of(experiment.plain(), self.classes).untrained()
        if train.init is not None:
            checkpoint.load_encoder(train.init, model)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if workers > 1:
            synchronise(self.model, self.device)
        ema = experiment.optim.ema
        self.ema = averaged(self.model, ema) if ema is not None else None
        self.recent: deque[Tensor] = deque(maxlen=max(1, STATISTICS_PAIRS // train.batch_size))
        """Recent batches, float16, for the average's batch-norm statistics."""
        self.network: nn.Module = self.model
        if workers > 1:
            self.network = DistributedDataParallel(self.model, broadcast_buffers=False)
        self.optimizer = experiment.optim.build(self.model.parameters(), train.batch_size)
        self.objective = experiment.objective.build()
        self.precision = agreed_precision(train.precision, self.device, workers)
        """Precision of this and every other worker."""
        self.embeddings: Tensor | None = None
        """Embeddings of the last step, (2 · local batch, size); None before the first and after a rollback."""
        self.returns = 0
        """Number of rollbacks."""
        self.network.train()
        self._good: dict[str, Any] | None = None

    def step(self, features: Tensor, labels: Tensor, ids: Tensor, indices: np.ndarray, step: int) -> dict[str, float]:
        """Take one step of the optimizer.

        Args:
            features: (local batch, 2, channels, frames, bins) or waveforms (local batch, 2, 1, samples), on the device.
            labels: (local batch,) int64, -1 where there is none, on the device.
            ids: (local batch,) int64 identities of the pairs, on the device: those of one identity are no negatives of
                each other.
            indices: (local batch,) int64, the pairs'.
            step: number of the step in the run.

        Returns:
            The loss, its terms, the gradient's norm and the learning rate.

        Raises:
            DivergedError: loss, gradient or embedding is NaN or infinite, and the weights are unchanged; or the step
                made the weights NaN or infinite. All workers raise it together.
        """
        experiment = self.experiment
        lr = self._set_lr(experiment.optim.factor(step, experiment.train.steps) * SLOWER**self.returns)
        # Both views as one batch, (2 · local batch, ...), the first views first.
        views = features.transpose(0, 1).flatten(0, 1).float()
        if self.frontend is not None:
            views = self._features(views.squeeze(1), indices)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            embeddings, logits = self.network(views)
        first, second = embeddings.chunk(2)
        loss, terms = self.objective(first, second, logits, labels, ids)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), experiment.train.clip or float("inf"))
        found = {"loss": loss.item(), "gradient_norm": norm.item(), "lr": lr}
        # Both are of the whole batch, so that all workers decide the same. The gradient is NaN wherever an embedding is
        # NaN or infinite, also of a pair without a label, which cross-entropy leaves out of the loss.
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(found[name]):
                raise DivergedError(f"{name} is {found[name]} at step {step}")
        self.optimizer.step()
        if not math.isfinite(size := self._size()):
            raise DivergedError(f"norm of the weights is {size} after step {step}")
        self.embeddings = embeddings.detach()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
            self.recent.append(views.half())
        return found | {name: term.item() for name, term in terms.items()}

    def spread(self) -> float | None:
        """Return the effective rank of the last step's embeddings, None without any; every worker must take part."""
        if self.embeddings is None:
            return None
        return effective_rank(gather(self.embeddings.float()).cpu()).item()

    def check(self, uniformity: float, rank: float) -> None:
        """Raise DivergedError if a contrastive objective's embedding has collapsed."""
        if self.experiment.objective.kind != "cross_entropy" and (reason := collapsed(uniformity, rank)):
            raise DivergedError(f"the embedding has collapsed: {reason}")

    def settle(self) -> None:
        """Compute the running average's batch-norm statistics from the last batches, before it is saved.

        Every worker must take part. Without an average, or a batch since training resumed, nothing happens.
        """
        if self.ema is not None and self.recent:
            update_bn((views.float() for views in self.recent), self.ema)

    def rollback(self) -> None:
        """Restore the weights and optimizer that were last kept, and halve the learning rate."""
        assert self._good is not None, "keep() must come before rollback()"
        self._load_state(self._good)
        self.returns += 1

    @property
    def trained(self) -> Model:
        """The model to keep and to score: the running average, if there is one, as `settle` left it."""
        return self.model if self.ema is None else cast(Model, self.ema.module)

    def save(self, folder: Path, position: Position, metrics: dict[str, Any]) -> None:
        """Write a checkpoint of the `trained` model into an existing folder."""
        resume = {"rng": torch.get_rng_state(), "returns": self.returns, "optimizer": self.optimizer.state_dict()}
        if self.ema is not None:
            resume |= {"model": self.model.state_dict(), "ema": self.ema.state_dict()}
        metrics = metrics | {"precision": self.precision}
        checkpoint.save(folder, self.trained, self.experiment.plain(), position, metrics, resume, self.classes)

    def keep(self) -> None:
        """Copy weights and optimizer for `rollback`."""
        self._good = self._state()

    def load(self, folder: Path) -> Position:
        """Resume from a checkpoint, and return its position."""
        checkpoint.load_weights(folder, self.model)
        resume = checkpoint.load_resume(folder)
        if "model" in resume:
            self.model.load_state_dict(resume["model"])
        # Settings are the experiment's: a trial that continues from another's checkpoint may have different ones.
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(resume["optimizer"])
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.pop("initial_lr", None)
            group.update(own)
        if self.ema is not None:
            self.ema.load_state_dict(average_state(resume["ema"]))
        torch.set_rng_state(resume["rng"])
        self.returns = resume["returns"]
        return checkpoint.position(folder)

    @torch.no_grad()
    def _features(self, sound: Tensor, indices: np.ndarray) -> Tensor:
        """Return the features of both views, the first views first, with their spectral augmentations."""
        drawn = self.experiment.pairs.drawn(torch.from_numpy(indices)).to(self.device)
        assert self.frontend is not None
        views = self.frontend(sound).unflatten(0, (2, -1))
        return self.augment.both_features(views, drawn).flatten(0, 1)

    def _state(self) -> dict[str, Any]:
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema is not None:
            parts["ema"] = self.ema.state_dict()
        return copy.deepcopy(parts)

    def _load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.embeddings = None

    def _size(self) -> float:
        """Return the norm of all weights and batch-norm statistics: NaN or infinite if one of them is."""
        state = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        return nn.utils.get_total_norm(state).item()

    def _set_lr(self, factor: float) -> float:
        """Set every group's learning rate to `factor` times what it was built with; returns the first group's."""
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
        return self.optimizer.param_groups[0]["lr"]
