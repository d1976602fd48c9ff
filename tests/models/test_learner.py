"""What learns, apart from Ray: every combination that a configuration can ask for takes its steps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from doppel_ray.config.experiment import Experiment
from doppel_ray.data.pairs import PairMaker
from doppel_ray.models import checkpoint
from doppel_ray.models.checkpoint import Position
from doppel_ray.models.learner import DivergedError, Learner

BATCH = 8
SMALL: dict[str, Any] = {
    "synth": {"duration": 0.25},
    "encoder": {"kind": "cnn", "width": 8},
    "head": {"kind": "mlp", "hidden": 16, "size": 8},
    "objective": {"kind": "nt_xent"},
    "optim": {"kind": "adamw", "lr": 1e-3, "reference_batch": None},
    "train": {"epochs": 2, "pairs_per_epoch": 4 * BATCH, "batch_size": BATCH, "precision": "fp32"},
}


def experiment(**changes: Any) -> Experiment:
    merged = {
        key: {**SMALL.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()
    }
    return Experiment.model_validate(SMALL | merged)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]
"""Features, labels, identities, indices."""


def batches(point: Experiment) -> list[Batch]:
    maker = PairMaker.of(point.plain())
    parts = torch.arange(point.train.steps * BATCH).split(BATCH)
    return [(*maker.labelled(part), part.numpy()) for part in parts]


def train(learner: Learner, steps: list[Any], first: int = 0) -> list[float]:
    return [learner.step(*batch, step)["loss"] for step, batch in enumerate(steps, start=first)]


STEPS = {"kind": "steps", "steps": {0.5: {"pitch": 0.0, "timbre": 0.3}}}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "clar": {
        "frontend": {"kind": "clar"},
        "encoder": {"kind": "resnet18", "width": 8},
        "augment": [{"kind": "fade"}, {"kind": "time_mask"}],
    },
    "raw": {"frontend": {"kind": "raw"}, "encoder": {"kind": "resnet18_1d", "width": 8}},
    "reuse": {"pairs": {"reuse": 3}},
    "lars": {"augment": [{"kind": "spec_mask"}], "optim": {"kind": "lars", "base": "adam", "ema": 0.9}},
    "delta in steps": {"pairs": {"delta": {"pitch": 0.1, "timbre": 0.2}, "schedule": STEPS}},
    "bf16": {"train": {"precision": "bf16"}, "objective": {"kind": "alignment_uniformity"}},
}


@pytest.mark.parametrize("changes", COMBINATIONS.values(), ids=COMBINATIONS)
def test_loss_falls(changes: dict[str, Any]) -> None:
    point = experiment(**changes)
    learner = Learner(point)
    before = {name: value.clone() for name, value in learner.model.named_parameters()}
    losses = train(learner, batches(point)[:2])
    assert np.isfinite(losses).all()
    assert all(
        not torch.equal(value, before[name]) for name, value in learner.model.named_parameters() if value.ndim > 1
    )


def test_supervised_loss_falls(esc10: Path) -> None:
    source = {"mix": {"synthetic": 0.5, "recordings": 0.5}, "recordings": {"layout": "esc50", "root": str(esc10)}}
    point = experiment(source=source, objective={"kind": "joint"})
    features, labels, ids, indices = batches(point)[0]
    assert (labels >= 0).sum() == BATCH // 2
    found = Learner(point, [str(k) for k in range(10)]).step(features, labels, ids, indices, 0)
    assert {"cross_entropy", "accuracy", "nt_xent"} <= found.keys()


@pytest.mark.parametrize("augment", [[], [{"kind": "gain"}, {"kind": "spec_mask"}]], ids=["plain", "masked"])
def test_features_of_generator_and_trainer_are_equal(augment: list[Any]) -> None:
    """But for the half precision of the sound that travels."""
    near = experiment(augment=augment)
    far = experiment(augment=augment, frontend={"where": "trainer"})
    (features, *_), (sound, *_, indices) = batches(near)[0], batches(far)[0]
    made = Learner(far)._features(sound.transpose(0, 1).flatten(0, 1).squeeze(1).float(), indices)
    expected = features.transpose(0, 1).flatten(0, 1).float()
    assert made.shape == expected.shape
    assert (made - expected).abs().mean() < 5e-3


@pytest.mark.parametrize("optim", [{}, {"kind": "lars", "ema": 0.9}, {"kind": "sgd", "momentum": 0.9}], ids=str)
def test_resume_equals_an_uninterrupted_run(optim: dict[str, Any], tmp_path: Path) -> None:
    point = experiment(optim=optim)
    stream = batches(point)
    whole = train(Learner(point), stream)
    first = Learner(point)
    train(first, stream[:4])
    first.save(tmp_path, Position(1, 4, 4 * BATCH), {})
    second = Learner(point)
    assert second.load(tmp_path) == Position(1, 4, 4 * BATCH)
    assert train(second, stream[4:], first=4) == pytest.approx(whole[4:], abs=1e-5)


def test_average_statistics(tmp_path: Path) -> None:
    """Batch norms of a checkpoint's averaged weights see channels of mean 0 and variance 1 in what it was trained on.

    With the statistics averaged as the weights are, or copied from the model, means lie up to 1 off here, and variances
    between 0.3 and 3.
    """
    point = experiment(optim={"ema": 0.99, "lr": 1e-2, "schedule": "constant"})
    learner, stream = Learner(point), batches(point)
    train(learner, stream * 3)
    learner.settle()
    learner.save(tmp_path, Position(), {})
    model, _ = checkpoint.load(tmp_path)
    seen: list[torch.Tensor] = []

    def normalise(norm: torch.nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        x = inputs[0].transpose(0, 1).flatten(1)
        spread = (norm.running_var + norm.eps).sqrt()
        seen.append((x - norm.running_mean[:, None]) / spread[:, None])

    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            norm.register_forward_hook(normalise)
    with torch.no_grad():
        model(torch.cat([features for features, *_ in stream]).transpose(0, 1).flatten(0, 1).float())
    assert len(seen) == 5
    for channels in seen:
        assert channels.mean(dim=1).abs().max() < 0.2
        assert 0.7 < channels.var(dim=1).min() < channels.var(dim=1).max() < 1.4


def test_resume_with_an_average_of_before(tmp_path: Path) -> None:
    """Checkpoints of before held the average's weights under their own names, with the number of updates."""
    point = experiment(optim={"ema": 0.9})
    learner, stream = Learner(point), batches(point)
    train(learner, stream[:3])
    learner.save(tmp_path, Position(1, 3, 3 * BATCH), {})
    resume = checkpoint.load_resume(tmp_path)
    assert learner.ema is not None
    resume["ema"] = {"updates": 3, "average": dict(learner.ema.module.state_dict())}
    torch.save(resume, tmp_path / checkpoint.RESUME)
    resumed = Learner(point)
    resumed.load(tmp_path)
    assert resumed.ema is not None
    for name, value in learner.ema.state_dict().items():
        assert torch.equal(value, resumed.ema.state_dict()[name])


def test_init_from_another_encoder(tmp_path: Path) -> None:
    point = experiment()
    trained = Learner(point)
    train(trained, batches(point)[:2])
    trained.save(tmp_path, Position(), {})
    learner = Learner(experiment(train={"init": str(tmp_path)}))
    for name, value in trained.model.encoder.state_dict().items():
        assert torch.equal(value, learner.model.encoder.state_dict()[name])


def test_rollback_after_nan() -> None:
    point = experiment()
    learner, stream = Learner(point), batches(point)
    train(learner, stream[:2])
    learner.keep()
    good = {name: value.clone() for name, value in learner.model.state_dict().items()}
    features, labels, ids, indices = stream[2]
    rate = learner.step(features, labels, ids, indices, 2)["lr"]
    with pytest.raises(DivergedError, match="loss is nan at step 3"):
        learner.step(features * float("nan"), labels, ids, indices, 3)
    learner.rollback()
    assert all(torch.equal(value, good[name]) for name, value in learner.model.state_dict().items())
    assert learner.spread() is None, "an epoch that ends here has no embeddings of these weights"
    assert learner.step(features, labels, ids, indices, 2)["lr"] == pytest.approx(rate / 2)
    assert math.isfinite(learner.spread() or math.nan)


def test_divergence_in_a_pair_without_label(esc10: Path) -> None:
    """Cross-entropy leaves such a pair out of the loss, but an embedding that is NaN must not be kept."""
    recordings = {"layout": "esc50", "root": str(esc10), "labelled": 0.0}
    point = experiment(
        source={"mix": {"recordings": 1.0}, "recordings": recordings}, objective={"kind": "cross_entropy"}
    )
    learner, (features, labels, ids, indices) = Learner(point, ["dog", "cat"]), batches(point)[0]
    features = torch.cat([torch.full_like(features[:1], float("nan")), features[1:]])
    with pytest.raises(DivergedError, match="gradient_norm is nan"):
        learner.step(features, labels, ids, indices, 0)
    assert learner.spread() is None


def test_divergence_of_weights() -> None:
    """A last step that makes the weights infinite has a good loss; a checkpoint of it would be what is returned to."""
    point = experiment(optim={"kind": "sgd", "lr": 1e38})
    learner, (first, *_) = Learner(point), batches(point)
    learner.keep()
    with pytest.raises(DivergedError, match=r"norm of the weights is (inf|nan) after step 0"):
        learner.step(*first, 0)
    learner.rollback()
    assert all(torch.isfinite(value).all() for value in learner.model.state_dict().values())


def test_check_raises_for_a_collapsed_embedding() -> None:
    learner = Learner(experiment())
    with pytest.raises(DivergedError, match="collapsed: effective rank is 1"):
        learner.check(uniformity=-1.0, rank=1.0)
    with pytest.raises(DivergedError, match="collapsed: uniformity"):
        learner.check(uniformity=-1e-5, rank=5.0)
    learner.check(uniformity=-1.0, rank=5.0)
