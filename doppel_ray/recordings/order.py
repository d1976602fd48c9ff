"""The order in which recordings come: every pass over them is another permutation, and none is ever stored."""

import torch
from torch import Tensor

from doppel_ray.synth import counter

ORDER_STREAM = 2**20 + 1
"""Stream of the draws that shuffle."""

ROUNDS = 8
"""Luby and Rackoff prove four rounds for large sets; small ones need some more to look shuffled."""


def permuted(size: int, seed: int, passes: Tensor, positions: Tensor) -> Tensor:
    """Which of `size` items stands at each position of each pass: (n,) int64, from two of the same shape.

    A Feistel network is a permutation of a power of four, whatever its rounds compute (Luby and Rackoff, 1988);
    walking on where it leaves [0, size) makes it one of [0, size) (Black and Rogaway, 2002). So an index finds its item
    by itself, in constant time and memory, where a shuffled list would have to be made for each pass.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    if half > 16:
        raise ValueError(f"{size} items; at most 2**32 can be shuffled")
    keys = counter.keys(seed, passes, ORDER_STREAM)
    item = positions
    outside = torch.ones_like(item, dtype=torch.bool)
    while outside.any():
        left, right = item >> half, item & ((1 << half) - 1)
        for turn in range(ROUNDS):
            bits = counter.bits(keys, (right + (turn << 16)).to(torch.int32)).to(torch.int64)
            left, right = right, left ^ (bits & ((1 << half) - 1))
        item = torch.where(outside, (left << half) | right, item)
        outside = item >= size
    return item
