"""What this package takes for granted of Ray's private parts: a test that fails here names what a new Ray has moved."""

import inspect

import pytest
from ray.train.torch import TorchTrainer

from doppel_ray.cluster import ray_compat
from doppel_ray.cluster.ray_compat import PRIVATE


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_part_is_where_it_was(name: str) -> None:
    assert getattr(ray_compat, name) is not None, PRIVATE[name].reason


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("BlockEntry", ["ref", "metadata"]),
        ("BlockSlice", ["start_offset", "end_offset"]),
        ("RefBundle", ["blocks", "schema", "owns_blocks", "slices"]),
        ("LogicalPlan", ["dag", "context"]),
        ("InputData", ["input_data"]),
        ("DatasetStats", ["metadata", "parent"]),
        ("_create_trial_from_spec", ["spec", "parser"]),
        ("DatasetsCallback", ["train_run_context", "datasets"]),
    ],
)
def test_a_private_part_takes_what_it_is_given(name: str, parameters: list[str]) -> None:
    taken = inspect.signature(getattr(ray_compat, name)).parameters
    assert set(parameters) <= set(taken), f"{name} takes {', '.join(taken)}"


def test_pools_can_be_scaled_up_and_down() -> None:
    request = ray_compat.ActorPoolScalingRequest
    assert request.upscale(delta=2, reason="").delta == 2
    assert request.downscale(delta=-1, reason="").delta == -1


def test_a_backpressure_policy_and_a_callback_have_the_hooks_that_are_overridden() -> None:
    assert callable(ray_compat.BackpressurePolicy.can_add_input)
    assert callable(ray_compat.ExecutionCallback.on_execution_step)


def test_a_trainer_and_a_callback_have_the_hooks_that_are_overridden() -> None:
    assert callable(TorchTrainer._initialize_and_run_controller)
    assert callable(TorchTrainer._create_default_callbacks)
    assert callable(ray_compat.DatasetsCallback.before_init_train_context)
    assert inspect.iscoroutinefunction(ray_compat.TrainController.run)
    assert callable(ray_compat.TrainController.get_result)


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = ray_compat.nothing_of_the_kind
