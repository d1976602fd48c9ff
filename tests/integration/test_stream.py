"""The stream of pairs is the same whatever the generators, the batch size and the failures."""

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
def test_stream_is_the_same_for_any_generators_and_batch_size(
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


def test_two_pools_share_a_stream(reference: torch.Tensor) -> None:
    """Generators of different sizes, as on CPU and GPU nodes; both pools take part."""
    pools = tuple(GeneratorConfig(actors=(1, 1), num_cpus=cpus) for cpus in (0.5, 1.5))
    both = Stream(EXPERIMENT, pools, DataConfig(block_pairs=16), local_batch=16, stop=COUNT)
    found = list(batches(both, 0, 16))
    assert np.concatenate([columns["index"] for columns in found]).tolist() == list(range(COUNT))
    features = torch.from_numpy(np.concatenate([columns["features"] for columns in found]))
    torch.testing.assert_close(features.float(), reference, rtol=0, atol=1e-4)
    assert len({int(pid) for columns in found for pid in columns["generator"]}) == 2


def record(config: dict[str, Any]) -> None:
    """A train worker that only records its indices; the second one is slow."""
    rank = ray.train.get_context().get_world_rank()
    shard = ray.train.get_dataset_shard("pairs")
    with (Path(config["folder"]) / f"{rank}.txt").open("w") as file:
        for batch in shard.iter_batches(batch_size=32, batch_format="numpy", drop_last=True):
            file.write(" ".join(map(str, batch["index"])) + "\n")
            time.sleep(0.1 * rank)


def test_two_train_workers_share_each_batch(tmp_path: Path) -> None:
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


def test_stream_after_a_killed_generator() -> None:
    """SIGKILL as soon as its first block has arrived."""
    rest = batches(stream(generators=2, batch=32, stop=1536, buffer_mb=16), 0, 32)
    found = [next(rest)]
    os.kill(int(found[0]["generator"][0]), signal.SIGKILL)
    for columns in rest:
        found.append(columns)
    assert np.concatenate([columns["index"] for columns in found]).tolist() == list(range(1536))
    assert any(columns["restarted"].any() for columns in found), "pairs of a restarted generator are marked"
    for columns in (found[0], found[-1]):
        again = PairMaker.of(EXPERIMENT)(torch.from_numpy(columns["index"].copy())).float()
        torch.testing.assert_close(torch.from_numpy(columns["features"].copy()).float(), again, rtol=0, atol=1e-4)


def stored() -> int:
    """Return the bytes in the object store."""
    (node,) = ray.nodes()
    return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats.object_store_bytes_used


def test_buffer_limits_the_pairs_that_wait() -> None:
    """A stream of 190 MB into a buffer of 16 MB."""
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
    assert sum(len(columns["index"]) for columns in slow) == 944, "it continues when they are read"


def generators() -> int:
    """Return how many are alive."""
    return sum(
        actor["State"] == "ALIVE" and actor["ActorClassName"].startswith("MapWorker") for actor in actors().values()
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pool_follows_the_demand() -> None:
    """It grows while training waits and shrinks while pairs wait; a minute on two idle cores.

    The consumer reads for longer than the autoscaler's window between two looks at the actors.
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

    assert eventually(lambda: read(0.0) == 2, 600), "a consumer that only reads needs two"
    assert eventually(lambda: read(2.0) == 1, 600), "a slow one needs one"
