"""Learning rates: the paper's schedule, scaled by the real batch ratio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doppel_ray.optim import OptimConfig

WEIGHTS = [torch.nn.Parameter(torch.zeros(1))]


def lr(config: OptimConfig, batch: int) -> float:
    return config.build(WEIGHTS, batch).param_groups[0]["lr"]


def test_the_learning_rate_follows_the_real_batch_ratio() -> None:
    """The published code's `batch // 256` is 0 below a batch of 256."""
    assert [lr(OptimConfig(lr=0.12), batch) for batch in (128, 256, 384, 768)] == pytest.approx(
        [0.06, 0.12, 0.18, 0.36]
    )


def test_without_a_reference_batch_the_learning_rate_is_what_it_says() -> None:
    assert lr(OptimConfig(kind="adamw", lr=2e-3, reference_batch=None), 128) == pytest.approx(2e-3)


def test_the_published_optimizer_is_the_default() -> None:
    optimizer = OptimConfig().build(WEIGHTS, 256)
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"], optimizer.defaults["momentum"]) == (
        0.12,
        1e-6,
        0.0,
    )


def test_multistep_divides_by_ten_at_77_5_85_and_92_5_percent_of_the_run() -> None:
    factors = [OptimConfig().factor(step, 200) for step in range(200)]
    assert factors == pytest.approx([1.0] * 155 + [0.1] * 15 + [0.01] * 15 + [0.001] * 15)


def test_warm_up_climbs_to_the_top_and_cosine_goes_down_to_nothing() -> None:
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
def test_no_schedule_ever_leaves_the_range_above_0_up_to_1(
    schedule: str, warmup: float, place: tuple[int, int]
) -> None:
    step, steps = place
    factor = OptimConfig.model_validate({"schedule": schedule, "warmup": warmup}).factor(step, steps)
    assert 0.0 < factor <= 1.0 + 1e-9
