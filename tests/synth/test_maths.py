"""The elementary functions hold the errors that their docstrings state, against float64."""

import math

import torch

from doppel_ray.synth import maths


def test_exp2m1_accuracy() -> None:
    x = torch.cat([torch.linspace(-32, 32, 40001), torch.logspace(-12, 0, 1000), -torch.logspace(-12, 0, 1000)])
    exact = torch.expm1(x.double() * math.log(2.0))
    assert ((maths.exp2m1(x) - exact) / exact).abs().nan_to_num().max() < 5e-6


def test_power_and_tanh_accuracy() -> None:
    base = torch.cat([torch.linspace(0, 1, 2001), torch.logspace(-30, 0, 500)])[:, None]
    exponent = torch.linspace(0.1, 6.0, 60)
    assert (maths.power(base, exponent) - base.double() ** exponent.double()).abs().max() < 1e-6
    x = torch.cat([torch.linspace(-20, 20, 40001), torch.tensor([-3e4, 3e4])])
    assert (maths.tanh(x) - torch.tanh(x.double())).abs().max() < 1.5e-6


def test_sine_and_cosine_accuracy() -> None:
    phase = torch.randint(-(2**31), 2**31 - 1, (100_000,), dtype=torch.int64).to(torch.int32)
    angle = phase.double() * (2.0 * math.pi / 2.0**32)
    assert (maths.cosine(phase) - torch.cos(angle)).abs().max() < 3e-7
    assert (maths.sine(phase) - torch.sin(angle)).abs().max() < 3e-7


def test_running_sum_when_traced() -> None:
    """A traced running sum equals a plain one bit for bit."""
    steps = torch.randint(-(2**31), 2**31 - 1, (1003, 2, 3), dtype=torch.int64).to(torch.int32)
    plain = maths.running_sum(steps)
    with maths.tracing():
        traced = maths.running_sum(steps)
    assert torch.equal(plain, traced)
