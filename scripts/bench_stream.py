"""The stream alone, without training: `python scripts/bench_stream.py`.

generators: pairs/s that a consumer which only reads gets from one generator and from two, in turn, a core each.
blocks: seconds per block for blocks of several sizes, in turn, by one generator. A line through them gives the
    cost of a block (its height at zero) and of a pair (its slope).
store: the same stream with an object store of 256 MB, read at full speed, then not at all until nothing more is
    made, then again: largest content of the store, bytes spilled to disk, and the memory of the processes.
pool: a pool of one to two generators, read at full speed, slowly, and at full speed again: number of generators.

Pairs are the published recipe's: a second of Voice at 16 kHz, VGGish log-mel. Needs two cores; other
work on them moves the ratios towards one.
"""

import os

from doppel_ray.cluster import ray_env

os.environ.update(ray_env.variables())  # before Ray is imported

import argparse
import contextlib
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import cast

import numpy as np
import ray
from bench_memory import sample
from ray._private.internal_api import node_stats
from ray._private.state import actors
from ray.util.annotations import RayDeprecationWarning

from doppel_ray.config.data import DataConfig, GeneratorConfig
from doppel_ray.config.experiment import Experiment
from doppel_ray.train.stream.dataset import Stream

Batches = Generator[dict[str, np.ndarray], None, None]

BLOCK = DataConfig().block_pairs
ENDLESS = 10**7
"""Pairs of a stream that no part reads to its end."""


@contextlib.contextmanager
def local(store_mb: int | None = None) -> Iterator[None]:
    """Run a Ray on this machine's cores, on loopback."""
    store = store_mb * 2**20 if store_mb else None
    logging.disable(logging.WARNING)  # Ray Data logs every execution
    warnings.simplefilter("ignore", RayDeprecationWarning)
    ray.init(
        address="local",
        dashboard_host="127.0.0.1",
        object_store_memory=store,
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def stream(
    size: tuple[int, int] = (1, 1), block: int = BLOCK, cpus: float = 1.0, experiment: Experiment | None = None
) -> Iterator[Batches]:
    """Yield the blocks of a stream, after each generator of the smallest pool has delivered one."""
    pool = GeneratorConfig(actors=size, num_cpus=cpus)
    plain = (experiment or Experiment()).plain()
    made = Stream(plain, (pool,), DataConfig(block_pairs=block), block, ENDLESS)
    read = made.dataset(0).iter_batches(batch_size=block, batch_format="numpy", prefetch_batches=1)
    batches = cast(Batches, iter(read))  # says Iterator, is what can be closed
    seen: set[int] = set()
    while len(seen) < size[0]:
        seen |= set(next(batches)["generator"].tolist())
    try:
        yield batches
    finally:
        batches.close()  # ends the execution, and with it the generators


def read(batches: Batches, seconds: float, pause: float = 0.0) -> float:
    """Return pairs per second, over `seconds` and at least two blocks, with a pause after each block."""
    next(batches)
    pairs, blocks, began = 0, 0, time.perf_counter()
    while blocks < 2 or time.perf_counter() - began < seconds:
        pairs += len(next(batches)["index"])
        blocks += 1
        time.sleep(pause)
    return pairs / (time.perf_counter() - began)


def generators(rounds: int, seconds: float) -> None:
    """Compare one generator with two."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with local():
        for _ in range(rounds):
            for count, found in rates.items():
                with stream((count, count)) as batches:
                    found.append(read(batches, seconds))
    one, two = (statistics.median(found) for found in rates.values())
    ratios = [second / first for first, second in zip(*rates.values(), strict=True)]
    print("\n| generators | pairs/s, median | rounds |\n|---|---|---|")
    for count, found in rates.items():
        print(f"| {count} | {statistics.median(found):.0f} | {' '.join(f'{rate:.0f}' for rate in found)} |")
    print(f"\n2 generators make {two / one:.2f} times the pairs of 1 (by round: {_list(ratios, '.2f')})")


def blocks(rounds: int, seconds: float, sizes: list[int]) -> None:
    """Measure the cost of a block and of a pair."""
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    with local():
        for _ in range(rounds):
            for size, found in rates.items():
                with stream(block=size) as batches:
                    found.append(read(batches, seconds))
    took = {size: size / statistics.median(found) for size, found in rates.items()}
    # Each point weighs by the inverse of what it measures, so that small blocks count as much as large ones.
    slope, height = np.polyfit(list(took), list(took.values()), 1, w=[1 / value for value in took.values()])
    print("\n| pairs per block | pairs/s, median | ms per block | by the line |\n|---|---|---|---|")
    for size, value in took.items():
        print(f"| {size} | {size / value:.0f} | {1e3 * value:.1f} | {1e3 * (height + size * slope):.1f} |")
    print(f"\na block costs {1e3 * height:.1f} ms and {1e3 * slope:.2f} ms for each of its pairs (one generator)")
    if height > 0:
        enough = height / slope * 19
        print(f"from {enough:.0f} pairs per block on, blocks cost less than 5 %")


def store(seconds: float, size_mb: int) -> None:
    """Measure a small object store with a consumer that pauses."""
    most: dict[str, float] = {}

    def look() -> float:
        (node,) = ray.nodes()
        held = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
        now = sample(os.getpid()) | {
            "held by the object store": held.object_store_bytes_used / 2**20,
            "spilled to disk": held.spilled_bytes_total / 2**20,
        }
        for name, value in now.items():
            most[name] = max(value, most.get(name, 0.0))
        return now["held by the object store"]

    with local(size_mb), stream() as batches:
        fast = read(batches, seconds)
        look()
        highest, grew = 0.0, time.monotonic()
        while time.monotonic() - grew < seconds:
            time.sleep(0.5)
            if (held := look()) > highest + 1:
                highest, grew = held, time.monotonic()
        again = read(batches, seconds)
        look()
    print(f"\n{fast:.0f} pairs/s before the pause, {again:.0f} after it; object store of {size_mb} MB")
    print("\n| | most, MB |\n|---|---|")
    for name, value in sorted(most.items()):
        if name != "object store":  # what its process has mapped, which is less than what it holds
            print(f"| {name} | {value:.0f} |")


def pool(seconds: float) -> None:
    """Print the size of the pool over time."""

    def size() -> int:
        return sum(
            actor["State"] == "ALIVE" and actor["ActorClassName"].startswith("MapWorker") for actor in actors().values()
        )

    print("\n| consumer | generators, every few seconds |\n|---|---|")
    with local(), stream((1, 2), block=32, cpus=0.5) as batches:
        for name, pause in (("reads all there is", 0.0), ("reads a block every second", 1.0), ("reads all", 0.0)):
            counts = []
            for _ in range(6):
                read(batches, seconds, pause)
                counts.append(size())
            print(f"| {name} | {_list(counts, 'd')} |", flush=True)


def _list(values: list[float] | list[int], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = ("generators", "blocks", "store", "pool")
    parser.add_argument("--parts", nargs="+", choices=names, default=list(names), help="what to measure (everything)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contestant plays (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each plays in a round (8)")
    parser.add_argument("--blocks", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512], help="block sizes")
    parser.add_argument("--store-mb", type=int, default=256, help="size of the small object store (256)")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "generators": lambda: generators(options.rounds, options.seconds),
        "blocks": lambda: blocks(options.rounds, options.seconds, options.blocks),
        "store": lambda: store(options.seconds, options.store_mb),
        "pool": lambda: pool(options.seconds),
    }
    for part in options.parts:
        parts[part]()


if __name__ == "__main__":
    main()
