"""Counter-based random numbers: a value depends only on (seed, index, stream, column).

So pair 1,000,003 is the same on a laptop and on a cluster, in any batch, on any device, before and after a crash.
`seed`, `index` and `stream` are mixed into two 32-bit keys; a column is then hashed under both keys with Wellons'
"lowbias32" finalizer (https://nullprogram.com/blog/2018/07/31/). Only integer operations are used, all modulo 2**32,
so the bits agree on every device. Not for cryptography.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive columns


class Stream(IntEnum):
    """Purpose of a draw. Streams of one index are independent; numbers from 1000 on are for augmentations."""

    PARAMETERS = 0
    FIRST_VIEW = 1
    SECOND_VIEW = 2
    NOISE = 3
    SECOND_VIEW_NOISE = 4
    AUGMENTATION = 1000


def _int32(value: int) -> int:
    """Return the signed int32 with the bits of `value` modulo 2**32."""
    value &= _MASK
    return value - (1 << 32) if value >> 31 else value


def _mix64(value: Tensor) -> Tensor:
    """Apply splitmix64's finalizer to int64, with wrap-around (Steele, Lea and Flood, OOPSLA 2014)."""
    value = (value ^ ((value >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    value = (value ^ ((value >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return value ^ ((value >> 31) & 0x1FFFFFFFF)


def keys(seed: int, indices: Tensor, stream: int) -> tuple[Tensor, Tensor]:
    """Return the two int32 keys of each index, both `(n,)`, on the device of `indices` (int64, `(n,)`)."""
    salt = (seed * 0x9E3779B97F4A7C15 + (int(stream) + 1) * 0xD1B54A32D192ED03) & ((1 << 64) - 1)
    salted = torch.full((), salt - (1 << 64) if salt >> 63 else salt, dtype=torch.int64, device=indices.device)
    mixed = _mix64(_mix64(indices.to(torch.int64) + _mix64(salted)) ^ salted)
    return mixed.to(torch.int32), (mixed >> 32).to(torch.int32)


def bits(key: tuple[Tensor, Tensor], columns: Tensor) -> Tensor:
    """Return 32 random bits as int32, for keys and int32 columns whose shapes broadcast."""
    first, second = key
    x = columns * _int32(_GOLDEN) + first
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D + second
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _int32(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def to_uniform(random_bits: Tensor) -> Tensor:
    """Return float32 in [0, 1) from the upper 24 bits, which is exact and so the same on every device."""
    return ((random_bits >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def uniform(seed: int, indices: Tensor, stream: int, columns: int) -> Tensor:
    """Draw uniformly from [0, 1): float32, `(n, columns)`, bit for bit the same on every device."""
    first, second = keys(seed, indices, stream)
    column = torch.arange(columns, dtype=torch.int32, device=indices.device)
    return to_uniform(bits((first[:, None], second[:, None]), column))


def normal(seed: int, indices: Tensor, stream: int, columns: int) -> Tensor:
    """Draw from the standard normal: float32, `(n, columns)`, by Box and Muller's transform in float64.

    Devices agree to 1e-6, not bitwise: logarithm and cosine may differ in their last bit.
    """
    first, second = keys(seed, indices, stream)
    column = torch.arange(2 * columns, dtype=torch.int32, device=indices.device)
    random_bits = bits((first[:, None], second[:, None]), column).to(torch.float64)
    radius, angle = ((random_bits + (2.0**31 + 0.5)) * 2.0**-32).unflatten(-1, (columns, 2)).unbind(-1)
    return (torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * math.pi * angle)).to(torch.float32)
