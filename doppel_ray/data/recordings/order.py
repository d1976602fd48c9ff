"""The order of recordings: another permutation in each pass, computed index by index and never stored."""

import math

import torch
from torch import Tensor

from doppel_ray.core import rng

ORDER_STREAM = 2**20 + 1
"""Stream of the draws that shuffle."""

ROUNDS = 8
"""Luby and Rackoff prove four rounds for large sets; small ones need some more to look shuffled."""


def permuted(size: int, seed: int, passes: Tensor, positions: Tensor) -> Tensor:
    """Return which of `size` items is at each position of each pass: (n,) int64, from two of the same shape.

    Items are laid out in a rectangle. Rows are shifted by a function of the column and columns by a function of the
    row, in turn: a permutation for any shifts, which looks random after a few rounds. An item in the last row's unused
    corner is permuted again until it leaves it (the generalised Feistel cipher of Black and Rogaway, CT-RSA 2002). So
    an index finds its item in constant time and memory, where each pass would need a shuffled list.
    """
    width = math.isqrt(size - 1) + 1
    height = -(-size // width)
    if width > 1 << 16:
        raise ValueError(f"{size} items; at most 2**32 can be shuffled")
    keys = rng.keys(seed, passes, ORDER_STREAM)

    def shift(place: Tensor, turn: int) -> Tensor:
        return rng.bits(keys, (place + (turn << 16)).to(torch.int32)).to(torch.int64) & 0xFFFFFFFF

    item = positions
    outside = torch.ones_like(item, dtype=torch.bool)
    while outside.any():
        row, column = item // width, item % width
        for turn in range(0, ROUNDS, 2):
            row = (row + shift(column, turn)) % height
            column = (column + shift(row, turn + 1)) % width
        item = torch.where(outside, row * width + column, item)
        outside = item >= size
    return item
