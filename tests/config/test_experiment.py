"""Configuration: every key has one place, and what is wrong is said so that a person can mend it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from doppel_ray.config.experiment import Experiment, read_experiment, scale_changes
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from tests.conftest import REPOSITORY


def refusal(file: Path | None = None, /, **overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read_experiment(file, {key.replace("__", "."): value for key, value in overrides.items()})
    return str(refused.value)


def written(folder: Path, **content: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("file", sorted((REPOSITORY / "tune_configs").glob("*.yaml")), ids=lambda file: file.name)
def test_every_config_that_is_shipped_is_valid(file: Path) -> None:
    read_experiment(file)
    if "small" in yaml.safe_load(file.read_text()):
        assert all(full != small for full, small in scale_changes(file).values()), "what is shrunk is another value"


def test_a_small_scale_is_what_the_file_says_and_options_still_win(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        train={"epochs": 30},
        search={"pairs.delta": {"grid": [0.1, 0.2, 0.3]}},
        small={"train.epochs": 3, "search.pairs.delta": {"grid": [0.2]}, "generators.0.num_cpus": 0.2},
    )
    assert read_experiment(file).train.epochs == 30
    small = read_experiment(file, {"train.batch_size": "32"}, scale="small")
    assert (small.train.epochs, small.train.batch_size, small.generators[0].num_cpus) == (3, 32, 0.2)
    assert small.search["pairs.delta"].grid == (0.2,)
    assert scale_changes(file)["train.epochs"] == (30, 3)
    with pytest.raises(ConfigError, match=r"scale small: .*mine\.yaml has no section `small`"):
        read_experiment(written(tmp_path, train={"epochs": 30}), scale="small")
    with pytest.raises(ConfigError, match=r"train\.epoch: .*did you mean train\.epochs\?.*mine\.yaml, small"):
        read_experiment(written(tmp_path, small={"train.epoch": 3}), scale="small")


def test_an_experiment_survives_being_written_down() -> None:
    experiment = read_experiment(REPOSITORY / "tune_configs" / "quickstart.yaml")
    assert Experiment.model_validate(experiment.plain()) == experiment
    assert Experiment.model_validate(yaml.safe_load(yaml.safe_dump(experiment.plain()))) == experiment


def test_every_key_has_a_description() -> None:
    assert [key for key, _, field in dotted_keys.leaves(Experiment) if not field.description] == []


def test_an_option_overrides_the_file_and_the_rest_stays(tmp_path: Path) -> None:
    file = written(tmp_path, pairs={"delta": 0.1}, train={"epochs": 3, "batch_size": 32})
    experiment = read_experiment(file, {"pairs.delta": "0.5", "train.epochs": "7"})
    assert (experiment.pairs.delta, experiment.train.epochs, experiment.train.batch_size) == (0.5, 7, 32)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1.0e-3", 1e-3), ("2E+2", 200.0), (".5", 0.5), ("3", 3.0)]
)
def test_numbers_are_numbers_however_they_are_written(tmp_path: Path, text: str, value: float) -> None:
    """YAML itself takes 1e-3 for text."""
    assert read_experiment(None, {"optim.lr": text}).optim.lr == value
    (tmp_path / "lr.yaml").write_text(f"optim: {{lr: {text}}}\nsearch: {{optim.lr: {{grid: [{text}]}}}}\n")
    experiment = read_experiment(tmp_path / "lr.yaml")
    assert experiment.optim.lr == value
    assert experiment.search["optim.lr"].grid == (value,)


def test_positions_in_a_list_are_keys_too(tmp_path: Path) -> None:
    assert read_experiment(None, {"generators.0.num_cpus": "0.25"}).generators[0].num_cpus == 0.25
    file = written(tmp_path, generators=[{"num_cpus": 0.5, "actors": "1..2"}])
    pool = read_experiment(file, {"generators.0.num_cpus": "0.25"}).generators[0]
    assert (pool.num_cpus, pool.actors) == (0.25, (1, 2))
    assert read_experiment(None, {"augment.0.kind": "gain", "augment.1.kind": "gain"}).augment[1].kind == "gain"


@pytest.mark.parametrize(
    "key", ["generators.2.num_cpus", "generators.7.num_cpus", "augment.3.kind", "augment.1", "generators.x.num_cpus"]
)
def test_a_position_that_a_list_does_not_have_is_refused(tmp_path: Path, key: str) -> None:
    file = written(tmp_path, generators=[{"num_cpus": 0.5}], augment=[])
    assert key.partition(".")[0] in refusal(file, **{key: "1"})


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("pairs.detla", "pairs.delta"),
        ("train.batchsize", "train.batch_size"),
        ("trian.epochs", "train.epochs"),
        ("probe.tasks", "probes.tasks"),
        ("optim.temperature", "objective.temperature"),
        ("synth.durration", "synth.duration"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_near_one(wrong: str, near: str) -> None:
    message = refusal(**{wrong: "1"})
    assert f"{wrong}: unknown key" in message or f"{wrong.partition('.')[0]}: unknown key" in message
    assert f"did you mean {near}?" in message or f"did you mean {near.partition('.')[0]}?" in message


@pytest.mark.parametrize(
    "delta", ["-0.1", "1.5", "nan", ".nan", ".inf", "much", "{pitch: 2.0}", "{smell: 0.1}", "[0.1]", "null"]
)
def test_a_delta_outside_0_to_1_is_refused(delta: str) -> None:
    assert "pairs.delta" in refusal(pairs__delta=delta)


def test_a_delta_for_each_group_of_parameters_is_allowed() -> None:
    assert read_experiment(None, {"pairs.delta.pitch": "0.1", "pairs.delta.mix": "0"}).pairs.delta == {
        "pitch": 0.1,
        "mix": 0.0,
    }


def test_a_fault_says_the_key_the_value_what_is_allowed_and_where_it_came_from(tmp_path: Path) -> None:
    file = written(tmp_path, train={"epochs": 0}, encoder={"kind": "transformer"})
    message = refusal(file, optim__lr="-1")
    assert f"train.epochs is 0: expected at least 1 (from {file})" in message
    assert "encoder.kind is 'transformer': expected 'resnet18', " in message
    assert "optim.lr is -1: expected more than 0" in message


def test_fault_of_several_keys_names_all_their_origins(tmp_path: Path) -> None:
    file = written(tmp_path, train={"workers": 3})
    assert refusal(file, train__batch_size="128", optim__lr="0.1") == (
        "train: batch_size 128 is not a multiple of 3 workers; the nearest multiple is 126 "
        f"(from {file} and --train.batch_size)"
    )


def test_no_generators_are_refused() -> None:
    assert "at least one generator must remain" in refusal(generators="[]")


@pytest.mark.parametrize("actors", ["0", "3..2", "two", "1..", "-1", "true"])
def test_an_impossible_number_of_generators_is_refused(actors: str) -> None:
    assert "actors" in refusal(generators__0__actors=actors)


def test_an_unknown_probe_task_is_refused_with_those_there_are() -> None:
    message = refusal(probes__tasks="[esc11]")
    assert "'esc11'" in message
    assert "esc10" in message


@pytest.mark.parametrize(
    ("space", "fault"),
    [
        ("{grid: []}", "grid has no values"),
        ("{}", "exactly one of"),
        ("{grid: [0.1], choice: [0.2]}", "exactly one of"),
        ("{uniform: [0.5, 0.1]}", "the first must be below the second"),
        ("{loguniform: [0.0, 0.1]}", "both must be above 0"),
        ("{gird: [0.1]}", "unknown key"),
        ("[0.1, 0.2]", "search.pairs.delta"),
    ],
)
def test_a_search_that_holds_nothing_to_search_is_refused(space: str, fault: str) -> None:
    assert fault in refusal(search__pairs__delta=space)


def test_a_search_over_a_key_that_does_not_exist_is_refused_with_the_near_one() -> None:
    message = refusal(search__pairs__detla="{grid: [0.1]}")
    assert "there is no key pairs.detla; did you mean pairs.delta?" in message


@pytest.mark.parametrize(
    ("key", "space"),
    [
        ("pairs.delta", "{grid: [0.1, 1.5]}"),
        ("pairs.delta", "{uniform: [0.5, 1.2]}"),
        ("train.workers", "{randint: [0, 3]}"),
        ("encoder.kind", "{choice: [cnn, mlp]}"),
    ],
)
def test_a_search_that_may_draw_what_is_not_allowed_is_refused(key: str, space: str) -> None:
    message = refusal(**{f"search.{key}": space})
    assert f"search.{key} holds a value that is not allowed" in message


@pytest.mark.parametrize("key", ["run.dir", "run.name", "tune.metric", "search"])
def test_what_belongs_to_the_sweep_cannot_be_searched(key: str) -> None:
    assert "cannot be searched" in refusal(**{f"search.{key}": "{grid: [1]}"})


def test_a_search_may_reach_below_a_key_and_into_a_list() -> None:
    experiment = read_experiment(
        None, {"search.pairs.delta.pitch": "{grid: [0.1]}", "search.generators.0.num_cpus": "{grid: [0.5]}"}
    )
    trial = experiment.with_values({"pairs.delta.pitch": 0.1, "generators.0.num_cpus": 0.5})
    assert trial.pairs.delta == {"pitch": 0.1}
    assert trial.generators[0].num_cpus == 0.5


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "No such file"),
        ("a: [", "is not YAML"),
        ("- a", "found list"),
        ("", "found NoneType"),
        ("train: 3", "train"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: str | None, fault: str) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_text(content)
    message = refusal(file)
    assert str(file) in message
    assert fault in message


def test_a_misspelt_file_is_refused_with_those_there_are() -> None:
    assert "quickstart.yaml" in refusal(REPOSITORY / "tune_configs" / "quickstrat.yaml")
