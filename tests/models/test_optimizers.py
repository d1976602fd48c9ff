"""Learning rates follow the paper's schedule, scaled by the real batch ratio; LARS and the average are the sources'."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from doppel_ray.models import EncoderConfig, HeadConfig, Model
from doppel_ray.models.optimizers import OptimConfig, averaged

WEIGHTS = [torch.nn.Parameter(torch.zeros(1))]


def lr(config: OptimConfig, batch: int) -> float:
    return config.build(WEIGHTS, batch).param_groups[0]["lr"]


def test_learning_rate_scales_with_the_batch() -> None:
    """The published code's `batch // 256` is 0 below a batch of 256."""
    assert [lr(OptimConfig(lr=0.12), batch) for batch in (128, 256, 384, 768)] == pytest.approx(
        [0.06, 0.12, 0.18, 0.36]
    )


@pytest.mark.parametrize("kind", ["adam", "adamw", "lars"])
def test_learning_rate_scaling_of_other_optimizers(kind: str) -> None:
    """Linear scaling is SGD's; steps of Adam and LARS don't grow with the gradient."""
    assert lr(OptimConfig.model_validate({"kind": kind, "lr": 1e-3}), 768) == pytest.approx(1e-3)
    asked = OptimConfig.model_validate({"kind": kind, "lr": 1e-3, "reference_batch": 256})
    assert lr(asked, 768) == pytest.approx(3e-3)


def test_learning_rate_without_reference_batch() -> None:
    """Without a reference batch the learning rate is not scaled."""
    assert lr(OptimConfig(kind="adamw", lr=2e-3, reference_batch=None), 128) == pytest.approx(2e-3)


def test_default_optimizer() -> None:
    optimizer = OptimConfig().build(WEIGHTS, 256)
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"], optimizer.defaults["momentum"]) == (
        0.12,
        1e-6,
        0.0,
    )


def test_multistep_defaults() -> None:
    """The learning rate is divided by ten at 77.5, 85 and 92.5 % of the run."""
    factors = [OptimConfig().factor(step, 200) for step in range(200)]
    assert factors == pytest.approx([1.0] * 155 + [0.1] * 15 + [0.01] * 15 + [0.001] * 15)


def test_multistep_settings() -> None:
    config = OptimConfig(milestones=(0.5,), gamma=0.2)
    assert [config.factor(step, 4) for step in range(4)] == pytest.approx([1.0, 1.0, 0.2, 0.2])


@pytest.mark.parametrize("milestones", [(0.5, 0.5), (0.8, 0.3), (0.0,), (1.0,)])
def test_bad_milestones_are_refused(milestones: tuple[float, ...]) -> None:
    """Milestones must rise within the run."""
    with pytest.raises(ValidationError, match="shares of the run between 0 and 1"):
        OptimConfig(milestones=milestones)


def test_warmup_and_cosine() -> None:
    config = OptimConfig(schedule="cosine", warmup=0.1)
    factors = [config.factor(step, 100) for step in range(100)]
    assert factors[:11] == sorted(factors[:11])
    assert 0.0 < factors[0] < 0.15
    assert factors[10] == pytest.approx(1.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert factors[-1] < 0.001


@given(
    st.sampled_from(["constant", "multistep", "cosine"]),
    st.floats(0.0, 0.99),
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
)
def test_schedule_range(schedule: str, warmup: float, place: tuple[int, int]) -> None:
    """Every factor is above 0 and at most 1."""
    step, steps = place
    factor = OptimConfig.model_validate({"schedule": schedule, "warmup": warmup}).factor(step, steps)
    assert 0.0 < factor <= 1.0 + 1e-9


# --- what moves how far ---------------------------------------------------------------------------------------------


def small_model() -> Model:
    return Model(EncoderConfig(kind="cnn", width=8), HeadConfig(kind="mlp", hidden=16, size=8), seed=0)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One step towards nothing in particular, of which only the number decides the features."""
    features = torch.randn(4, 1, 32, 64, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    model(features).embeddings.square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(("kind", "excluded"), [("lars", True), ("sgd", False), ("adamw", False)])
def test_weight_decay_of_norms_and_biases(kind: str, excluded: bool) -> None:
    """LARS excludes norms and biases from weight decay; the others do as published."""
    model = small_model()
    config = OptimConfig.model_validate({"kind": kind, "weight_decay": 0.1})
    assert config.build(model.parameters(), 128).param_groups[0]["weight_decay"] == (0.0 if kind == "lars" else 0.1)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-12)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config.build(model.parameters(), 128).step()
    shrunk = {name for name, p in model.named_parameters() if p.norm() < (1 - 1e-4) * before[name].norm()}
    weights = {name for name, p in model.named_parameters() if p.ndim > 1}
    norms = {name for name, p in model.named_parameters() if p.ndim < 2 and p.any()}
    assert weights <= shrunk
    assert bool(norms & shrunk) is not excluded


def test_lars_with_sgd() -> None:
    """Each weight moves by its learning rate, trust · ‖w‖ / (‖g‖ + decay · ‖w‖) but at most lr, along g + decay · w."""
    random = torch.manual_seed(0)
    steep, flat = (nn.Parameter(torch.randn(5, 3, generator=random)) for _ in range(2))
    bias = nn.Parameter(torch.zeros(3))
    config = OptimConfig(kind="lars", lr=0.5, reference_batch=None, weight_decay=0.01, trust=0.02)
    optimizer = config.build([steep, flat, bias], 128)
    expected: list[Tensor] = []
    for p, scale in ((steep, 3.0), (flat, 1e-3), (bias, 1.0)):
        p.grad = scale * torch.randn(p.shape, generator=random)
        decay = 0.01 if p.ndim > 1 else 0.0
        rate = 0.02 * p.norm() / (p.grad.norm() + decay * p.norm()) if p.any() else torch.tensor(0.5)
        expected.append((p - rate.clamp(max=0.5) * (p.grad + decay * p)).detach())
    optimizer.step()
    for found, wanted in zip((steep, flat, bias), expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted)


def test_lars_with_adam() -> None:
    """What CLAR trains with: Adam divides by the gradient's size, so that its first step is lr whatever the ratio."""
    weight = nn.Parameter(torch.full((4, 4), 0.1))
    weight.grad = torch.full((4, 4), 10.0)
    OptimConfig(kind="lars", base="adam", lr=1.0, reference_batch=None).build([weight], 128).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), -0.9), atol=1e-3, rtol=0.0)


# --- the average of the weights -------------------------------------------------------------------------------------


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_average_warmup() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average, expected = averaged(model, 0.5), 0.0
    average.update_parameters(model)
    assert average.module.weight.item() == 0.0, "the first update copies"
    nn.init.ones_(model.weight)
    for n in range(1, 12):
        average.update_parameters(model)
        keep = min(0.5, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep)
        assert average.module.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 1.0


OPTIMIZERS: list[dict[str, Any]] = [
    {"kind": "sgd", "momentum": 0.9},
    {"kind": "adam"},
    {"kind": "adamw"},
    {"kind": "lars", "momentum": 0.9},
    {"kind": "lars", "base": "adam"},
]


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_resume_is_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    config = OptimConfig.model_validate({"lr": 0.01, "weight_decay": 0.01, "ema": 0.99, **options})

    def start() -> tuple[Model, torch.optim.Optimizer, AveragedModel]:
        model = small_model()
        assert config.ema is not None
        return model, config.build(model.parameters(), 128), averaged(model, config.ema)

    model, optimizer, ema = start()
    for step in range(4):
        if step == 2:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
            torch.save(states, tmp_path / "resume.pt")
        learn(model, optimizer, step)
        ema.update_parameters(model)

    other, other_optimizer, other_ema = start()
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    other.load_state_dict(saved["model"])
    other_optimizer.load_state_dict(saved["optimizer"])
    other_ema.load_state_dict(saved["ema"])
    for step in (2, 3):
        learn(other, other_optimizer, step)
        other_ema.update_parameters(other)
    assert same(weights(other), weights(model))
    assert same(weights(other_ema), weights(ema))
