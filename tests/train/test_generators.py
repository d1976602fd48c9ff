"""Pools of generators: several kinds of actors behind one of Ray Data's."""

import re

import pytest

from doppel_ray.config.data import GeneratorConfig
from doppel_ray.config.experiment import validate_experiment
from doppel_ray.core.errors import ConfigError
from doppel_ray.train.stream.generators import ActorPlacement, pool_strategy

CPU = GeneratorConfig.model_validate({"actors": "1..3", "num_cpus": 1.0})
GPU = GeneratorConfig.model_validate({"device": "cuda", "actors": "0..2", "num_cpus": 0.5, "num_gpus": 0.25})


def test_all_pools_become_one_of_ray_data() -> None:
    made = pool_strategy((CPU, GPU))
    assert (made.min_size, made.max_size, made.initial_size) == (1, 5, 1)


def test_placement_fills_the_minimum_of_each_pool_first() -> None:
    pools = (CPU, GPU.model_copy(update={"actors": (1, 2)}))
    shares = ActorPlacement(pools, train_nodes=frozenset)
    started = [shares() for _ in range(5)]
    cpu, gpu = {"num_cpus": 1.0, "num_gpus": 0.0}, {"num_cpus": 0.5, "num_gpus": 0.25}
    assert started[:2] == [cpu, gpu]
    assert started.count(cpu) == 3
    assert started.count(gpu) == 2


@pytest.mark.parametrize(
    ("pools", "fault"),
    [
        ([{"actors": "0..2"}], "at least one generator must remain"),
        ([{"actors": "0..0"}], "expected at least 0..1"),
        ([{"actors": "3..2"}], "first not above the second"),
        ([{"device": "cuda"}], "a cuda generator needs num_gpus above 0"),
        ([{"num_gpus": 0.5}], "a cpu generator needs num_gpus 0"),
    ],
)
def test_pools_without_generators_are_refused(pools: list[dict[str, object]], fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        validate_experiment({"generators": pools})
