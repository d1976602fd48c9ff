"""Arithmetic that the modules share: pitch, phase as an integer, and elementary functions made to be fused.

A phase is an int32, a fraction of a turn in units of 2**-32. Sums of phases wrap around by themselves and are exact in
any order: no drift, no growing argument, the same bits for any split of the work.

What runs at audio rate are polynomials in plain tensor operations, so that the compiler can put them inside a loop
instead of calling a library for each. Coefficients are minimax
(Remez's algorithm); errors are stated, and tested against float64.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_TURN = 2.0**32
_EXP2M1 = (
    *(0.00015469734993268656, 0.0013390866852866397, 0.009618030771193819),
    *(0.055503571054994025, 0.24022651084211585, 0.6931471880289533),
)
_TANH = (1.1310206332789327e-05, 0.002938825897943907, 0.12913639489150075, 0.9999993620376693)
_TANH_BELOW = (2.4238361223319744e-07, 0.00023702822760994694, 0.023763819414767698, 0.4624673821977835, 1.0)
_TANH_END = 8.0  # 1 - tanh(8) is 2e-7
_SINE = (39.76161707242047, -76.58139641960975, 81.60248511162399, -41.341680722657955, 6.283185280367996)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Evaluate a polynomial by Horner's scheme, highest power first."""
    result = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * x + coefficient
    return result


def midi_to_hz(midi: Tensor) -> Tensor:
    """Return the frequency in Hz of a MIDI note number: 440 Hz at 69, an octave every 12."""
    return 440.0 * torch.exp2((midi - 69.0) / 12.0)


def exp2m1(x: Tensor) -> Tensor:
    """Return 2**x - 1 for x in [-32, 32], float32, with a relative error below 5e-6.

    Near 0, where `exp2(x) - 1` cancels, the error is below 1e-6.

    A polynomial at x / 64, doubled six times by (1 + p)**2 - 1 = p (p + 2): no bits are taken apart, as the usual
    2**floor(x) would have to, which the compiler does one number at a time.
    """
    part = x * (1.0 / 64.0)
    grown = _polynomial(part, _EXP2M1) * part
    for _ in range(6):
        grown = grown * (grown + 2.0)
    return grown


def power(base: Tensor, exponent: Tensor | float) -> Tensor:
    """Return base**exponent, float32, for a base in [0, 1] and an exponent in [0.1, 6]; absolute error below 1e-6.

    By the library's vector functions: at control rate a call costs less than taking bits apart would.
    """
    return torch.exp2(torch.log2(base) * exponent)


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent, float32; absolute error below 1.5e-6.

    A quotient of polynomials, which do not wait for each other as a chain of squarings would. It holds up to 8, where
    two rectifiers cut: clamping, as the compiler does it, also looks for NaN.
    """
    cut = _TANH_END - (2.0 * _TANH_END - (x + _TANH_END).relu()).relu()
    square = cut * cut
    return cut * _polynomial(square, _TANH) / _polynomial(square, _TANH_BELOW)


def to_phase(turns: Tensor) -> Tensor:
    """Return the phase (int32) of turns, whole turns dropped."""
    return ((turns - torch.round(turns)) * _TURN).to(torch.int32)


def to_turns(phase: Tensor) -> Tensor:
    """Return a phase as a float32 in [-1/2, 1/2] turns."""
    return phase.to(torch.float32) * (1.0 / _TURN)


def cosine(phase: Tensor) -> Tensor:
    """Return the cosine of a phase (int32), float32; absolute error below 3e-7."""
    quarter = 0.25 - to_turns(phase).abs()  # cos(2πr) = sin(2π(1/4 - |r|)), and the argument is at most a quarter turn
    return _polynomial(quarter * quarter, _SINE) * quarter


def sine(phase: Tensor) -> Tensor:
    """Return the sine of a phase (int32): the cosine a quarter turn before."""
    return cosine(phase - (1 << 30))


def running_sum(steps: Tensor) -> Tensor:
    """Return inclusive running sums of phases along the first dimension; int32 `(points, ...)`.

    Blocks of 8 are summed first, then blocks of block sums, and so on; a point is then the sum of the blocks before it
    and of its own block up to it. Every level runs across sounds at once, which `torch.cumsum` does not, and integers
    add up to the same bits in any order.
    """
    if not _tracing:
        return torch.cumsum(steps, dim=0, dtype=torch.int32)
    points, block = len(steps), 8
    if points == 1:
        return steps
    if points % block:
        steps = materialize(torch.nn.functional.pad(steps, (0, 0) * (steps.ndim - 1) + (0, -points % block)))
    blocks = steps.unflatten(0, (-1, block))
    place = torch.arange(block, dtype=torch.int32, device=steps.device)
    up_to = -(place <= place[:, None]).to(torch.int32)  # all bits set, or none
    inside = (blocks[:, None] & up_to.view(block, block, *[1] * (steps.ndim - 1))).sum(dim=2, dtype=torch.int32)
    if len(blocks) > 1:
        totals = materialize(blocks.sum(dim=1, dtype=torch.int32))
        inside = inside + materialize(running_sum(totals) - totals)[:, None]
    return inside.flatten(0, 1)[:points]


def materialize(signal: Tensor) -> Tensor:
    """Return the signal, and make the compiler store it here, so that loops at a faster rate only read it.

    Means something to the compiler alone, which would otherwise fuse control-rate work into the audio-rate loop and do
    it again for every sample; `compiled.py` defines how.
    """
    return _hold(signal) if _tracing else signal


_tracing = False


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Mark this thread as traced by the compiler: `materialize` is recorded, and running sums are written out."""
    global _tracing
    _tracing = True
    try:
        yield
    finally:
        _tracing = False


@torch.library.custom_op("doppel_ray::materialize", mutates_args=())
def _hold(signal: Tensor) -> Tensor:
    return signal.clone()


@_hold.register_fake
def _(signal: Tensor) -> Tensor:
    return torch.empty_like(signal)
