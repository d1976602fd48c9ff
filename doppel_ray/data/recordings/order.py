"""The order in which recordings come: every pass over them is another permutation, and none is ever stored."""

import math

import torch
from torch import Tensor

from doppel_ray.core import rng

ORDER_STREAM = 2**20 + 1
"""Stream of the draws that shuffle."""

ROUNDS = 8
"""Luby and Rackoff prove four rounds for large sets; small ones need some more to look shuffled."""


def permuted(size: int, seed: int, passes: Tensor, positions: Tensor) -> Tensor:
    """Which of `size` items stands at each position of each pass: (n,) int64, from two of the same shape.

    Items are laid out in a rectangle, and rows and columns are shifted in turn by what the other says: a permutation,
    whatever the shifts are, and one that looks random after a few rounds. What lands in the last row's unused corner
    goes on until it leaves it (the generalised Feistel cipher of Black and Rogaway, CT-RSA 2002). So an index finds its
    item by itself, in constant time and memory, where a shuffled list would have to be made for each pass.
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
