"""The stream of pairs does not depend on who makes it, how it is cut, or what happens on the way."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train
import torch
from ray._private.internal_api import node_stats
from ray._private.state import actors
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from doppel_ray.config.data import DataConfig, GeneratorConfig
from doppel_ray.config.experiment import Experiment
from doppel_ray.data.pairs import PairMaker
from doppel_ray.train.stream.dataset import Stream
from doppel_ray.train.stream.pool_scaling import PoolAutoscaler
from tests.integration.processes import eventually

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

COUNT = 512
EXPERIMENT = Experiment.model_validate({"augment": [{"kind": "gain"}]}).plain()


def stream(generators: int = 1, batch: int = 64, stop: int = COUNT, **data: int) -> Stream:
    pool = GeneratorConfig(actors=(generators, generators), num_cpus=0.5)
    return Stream(EXPERIMENT, (pool,), DataConfig.model_validate(data), local_batch=batch, stop=stop)


def batches(of: Stream, start: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    return iter(of.dataset(start).iter_batches(batch_size=size, batch_format="numpy"))


@pytest.fixture(scope="module")
def reference() -> torch.Tensor:
    """The features of the first indices, made in this process without Ray."""
    return PairMaker.of(EXPERIMENT)(torch.arange(COUNT)).float()


@pytest.mark.parametrize(
    ("generators", "batch", "start"),
    [(1, 64, 0), (3, 64, 0), (1, 32, 0), (3, 32, 256)],
    ids=["1 generator, batches of 64", "3 generators", "batches of 32", "3 generators, batches of 32, resumed at 256"],
)
def test_the_stream_does_not_depend_on_who_makes_it(
    generators: int, batch: int, start: int, reference: torch.Tensor
) -> None:
    found = list(batches(stream(generators, batch), start, batch))
    indices = np.concatenate([columns["index"] for columns in found])
    features = torch.from_numpy(np.concatenate([columns["features"] for columns in found]))
    assert indices.tolist() == list(range(start, COUNT))
    assert features.dtype == torch.float16
    torch.testing.assert_close(features.float(), reference[start:], rtol=0, atol=1e-4)
    makers = {int(pid) for columns in found for pid in columns["generator"]}
    assert 1 <= len(makers) <= generators
    assert not any(columns["restarted"].any() for columns in found)


def test_two_pools_share_the_blocks_and_keep_their_order(reference: torch.Tensor) -> None:
    """Of different sizes, as those on CPU and GPU nodes are; both take part, and what they make is the same stream."""
    pools = tuple(GeneratorConfig(actors=(1, 1), num_cpus=cpus) for cpus in (0.5, 1.5))
    both = Stream(EXPERIMENT, pools, DataConfig(block_pairs=16), local_batch=16, stop=COUNT)
    found = list(batches(both, 0, 16))
    assert np.concatenate([columns["index"] for columns in found]).tolist() == list(range(COUNT))
    features = torch.from_numpy(np.concatenate([columns["features"] for columns in found]))
    torch.testing.assert_close(features.float(), reference, rtol=0, atol=1e-4)
    assert len({int(pid) for columns in found for pid in columns["generator"]}) == 2


def record(config: dict[str, Any]) -> None:
    """A train worker that only writes down which indices it was given; the second one is slow."""
    rank = ray.train.get_context().get_world_rank()
    shard = ray.train.get_dataset_shard("pairs")
    with (Path(config["folder"]) / f"{rank}.txt").open("w") as file:
        for batch in shard.iter_batches(batch_size=32, batch_format="numpy", drop_last=True):
            file.write(" ".join(map(str, batch["index"])) + "\n")
            time.sleep(0.1 * rank)


def test_two_train_workers_share_exactly_the_global_batches_of_one(tmp_path: Path) -> None:
    """As `trainer` joins Ray Train to the stream; 20 s to start the workers."""
    halves = stream(generators=2, batch=32)
    TorchTrainer(
        record,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        datasets={"pairs": lambda: halves.dataset(0)},
        dataset_config=ray.train.DataConfig(execution_options=halves.execution_options(), enable_shard_locality=False),
        run_config=ray.train.RunConfig(name="record", storage_path=str(tmp_path / "train")),
    ).fit()
    given = [
        [[int(i) for i in line.split()] for line in (tmp_path / f"{k}.txt").read_text().splitlines()] for k in (0, 1)
    ]
    assert [len(lines) for lines in given] == [COUNT // 64] * 2
    for step, (first, second) in enumerate(zip(*given, strict=True)):
        assert sorted(first + second) == list(range(64 * step, 64 * (step + 1)))


def test_a_generator_that_is_killed_is_replaced_and_nothing_is_lost_or_said_twice() -> None:
    """SIGKILL as soon as its first block has arrived."""
    rest = batches(stream(generators=2, batch=32, stop=1536, buffer_mb=16), 0, 32)
    found = [next(rest)]
    os.kill(int(found[0]["generator"][0]), signal.SIGKILL)
    for columns in rest:
        found.append(columns)
    assert np.concatenate([columns["index"] for columns in found]).tolist() == list(range(1536))
    assert any(columns["restarted"].any() for columns in found), "what a generator made after its restart is marked"
    for columns in (found[0], found[-1]):
        again = PairMaker.of(EXPERIMENT)(torch.from_numpy(columns["index"].copy())).float()
        torch.testing.assert_close(torch.from_numpy(columns["features"].copy()).float(), again, rtol=0, atol=1e-4)


def stored() -> int:
    """Bytes that the object store holds now."""
    (node,) = ray.nodes()
    return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats.object_store_bytes_used


def test_generators_pause_when_nobody_takes_their_pairs() -> None:
    """A stream of 190 MB into a buffer of 16 MB: what waits is bounded by the buffer, not by the stream."""
    wide = Stream(
        Experiment.model_validate({"frontend": {"mels": 512}, "synth": {"control_rate": 100}}).plain(),
        (GeneratorConfig(num_cpus=1.0),),
        DataConfig(buffer_mb=16, block_pairs=16, prefetch_batches=1),
        local_batch=16,
        stop=960,
    )
    before = stored()
    slow = iter(wide.dataset(0).iter_batches(batch_size=16, batch_format="numpy", prefetch_batches=1))
    next(slow)
    highest, grew = before, time.monotonic()
    while time.monotonic() - grew < 8:  # until nothing has been added for a while
        time.sleep(0.25)
        used = stored()
        if used > highest:
            highest, grew = used, time.monotonic()
    waiting = (highest - before) / 2**20
    assert 3 < waiting < 48, f"{waiting:.0f} MB wait"
    assert sum(len(columns["index"]) for columns in slow) == 944, "and it goes on when somebody does"


def generators() -> int:
    """How many are up now."""
    return sum(
        actor["State"] == "ALIVE" and actor["ActorClassName"].startswith("MapWorker") for actor in actors().values()
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_pool_grows_while_training_waits_and_shrinks_while_pairs_wait() -> None:
    """About a minute on two idle cores: it looks back on ten seconds, and generators take some to start.

    Between two looks at the actors, which take time of their own, the consumer reads for longer than that.
    """
    assert eventually(lambda: generators() == 0, 300), "those of other tests are gone"
    pool = GeneratorConfig(actors=(1, 2), num_cpus=0.5)
    endless = Stream(EXPERIMENT, (pool,), DataConfig(block_pairs=16, buffer_mb=16), local_batch=16, stop=10**6)
    rest = batches(endless, 0, 16)
    next(rest)
    assert generators() == 1

    def read(pause: float) -> int:
        end = time.monotonic() + 1.5 * PoolAutoscaler.WINDOW
        while time.monotonic() < end:
            next(rest)
            time.sleep(pause)
        return generators()

    assert eventually(lambda: read(0.0) == 2, 600), "nothing waits for a consumer that only reads"
    assert eventually(lambda: read(2.0) == 1, 600), "one that hardly reads needs only one"
