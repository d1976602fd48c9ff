"""The model of scripts/simulate_scale.py: which part limits a trial."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from doppel_ray.core.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def model() -> Iterator[ModuleType]:
    """The script as a module, beside the scripts that it imports."""
    folder = REPOSITORY / "scripts"
    spec = importlib.util.spec_from_file_location("simulate_scale", folder / "simulate_scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setitem(sys.modules, "simulate_scale", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def rates(model: Any) -> Any:
    """Round numbers: a core makes 1,000 pairs/s and trains on 100."""
    return model.Rates(
        pair=1e-3,
        block=0.0,
        pair_bytes=1e4,
        hand_out=0.02,
        head=1e-3,
        step=0.0,
        step_pair=1e-2,
        parameters=10**6,
        embedded=100,
        store=1e9,
        gpu_pair=None,
        gpu_step=0.0,
        gpu_step_pair=1e-4,
        origin={},
    )


@pytest.fixture
def trial(model: Any) -> Any:
    return model.Trial(
        batch=100,
        workers=1,
        worker_cpus=1.0,
        on_gpus=True,
        gpu_generators=0,
        block=100,
        gbps=10.0,
        cores=None,
    )


def bound(model: Any, rates: Any, trial: Any, *nodes: str) -> tuple[str, float]:
    return min(
        model.limits(rates, trial, [model.kind(node) for node in nodes]).items(), key=lambda limit: (limit[1], limit[0])
    )


def test_gpu_is_limited_by_few_generators(model: Any, rates: Any, trial: Any) -> None:
    assert bound(model, rates, trial, "1x5+1") == ("generators", 4000.0)
    assert bound(model, rates, trial, "1x5+1", "1x8") == ("coordinator", 5000.0)
    larger = replace(trial, block=400)
    assert bound(model, rates, larger, "1x5+1", "1x8") == ("training", pytest.approx(10000.0))


def test_step_of_two_workers_includes_the_network(model: Any, rates: Any, trial: Any) -> None:
    """Half of 2 x 10^6 + 10^4 numbers of 4 bytes at 10 Gbit/s, and half a batch each."""
    two = replace(trial, workers=2)
    assert model.step_seconds(rates, two) == pytest.approx(50 * 1e-4 + 0.5 * 2.01e6 * 32 / 1e10)


def test_nodes_on_one_machine_share_its_cores(model: Any, rates: Any, trial: Any) -> None:
    shared = replace(trial, on_gpus=False, cores=2)
    name, pace = bound(model, rates, shared, "3x2")
    assert name == "training"
    assert pace == pytest.approx(100)
    name, pace = bound(model, rates, replace(shared, workers=4), "3x2")
    assert name == "cores"
    assert pace < 200


@pytest.mark.parametrize(
    ("changes", "nodes", "fault"),
    [
        ({"workers": 2}, "1x8+1", "1 of 2 train workers of 1 CPUs and a GPU do not fit"),
        ({"gpu_generators": 1}, "1x8+1", "no rate of generating on a GPU is known"),
        ({}, "8 CPUs", "expected COUNTxCPUS+GPUS@PRICE"),
    ],
)
def test_unknown_rates_and_bad_nodes_are_refused(
    model: Any, rates: Any, trial: Any, changes: dict[str, int], nodes: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        bound(model, rates, replace(trial, **changes), nodes)
