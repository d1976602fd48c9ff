"""The experiment: all configuration sections, read from YAML and dotted overrides."""

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from doppel_ray.config.data import DataConfig, GeneratorConfig
from doppel_ray.config.probes import ProbesConfig
from doppel_ray.config.run import RunConfig
from doppel_ray.config.search import Space
from doppel_ray.config.train import TrainConfig
from doppel_ray.config.tune import TuneConfig
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.schema import Section
from doppel_ray.data.augment import AugmentConfig, check_chain
from doppel_ray.data.frontends import FrontendConfig
from doppel_ray.data.pairs import PairsConfig
from doppel_ray.data.recordings import SourceConfig
from doppel_ray.models import EncoderConfig, HeadConfig
from doppel_ray.models.objectives import ObjectiveConfig
from doppel_ray.models.optimizers import OptimConfig
from doppel_ray.synth import SynthConfig


class Experiment(Section):
    """The settings of an experiment, as in a file of tune_configs/."""

    run: RunConfig = RunConfig()
    synth: SynthConfig = SynthConfig()
    pairs: PairsConfig = PairsConfig()
    source: SourceConfig = SourceConfig()
    frontend: FrontendConfig = FrontendConfig()
    augment: tuple[AugmentConfig, ...] = ()
    """Augmentations applied to each view, in order, such as [{kind: gain}, {kind: fade}]. Default: none."""
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    generators: tuple[GeneratorConfig, ...] = (GeneratorConfig(),)
    """Pools of generators, the processes that render pairs, each a mapping of device (cpu or cuda), actors (number of
    processes, such as 2 or 1..4), num_cpus and num_gpus (of each process)."""
    probes: ProbesConfig = ProbesConfig()
    tune: TuneConfig = TuneConfig()
    search: dict[str, Space] = Field(default={})
    """Keys that the sweep varies, each with one of grid, choice, uniform, loguniform, randint. On the command line:
    --search.pairs.delta '{grid: [0.05, 0.25]}'."""

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if sum(pool.actors[0] for pool in self.generators) < 1:
            raise ValueError(
                "generators: all pools may shrink to 0; at least one generator must remain, such as actors: 1"
            )
        frontend = self.frontend.build(self.synth.sample_rate)
        if frontend.domain != self.encoder.domain:
            raise ValueError(
                f"encoder.kind is {self.encoder.kind}, which needs a {self.encoder.domain}, but frontend.kind is "
                f"{self.frontend.kind}, which produces a {frontend.domain}"
            )
        self.tune.check(self.search)
        check_chain(self.augment, self.synth.sample_rate, frontend.domain)
        if self.objective.needs_labels and self.source.share == 0.0:
            raise ValueError(
                f"objective.kind is {self.objective.kind}, which needs labels, and synthetic pairs have none; "
                "add recordings to source.mix, or choose another objective.kind"
            )
        return self

    def plain(self) -> dict[str, Any]:
        """Return the experiment as plain JSON data for `Experiment.model_validate`."""
        return self.model_dump(mode="json")

    def with_absolute_paths(self) -> "Experiment":
        """Return a copy with absolute input paths, since generators and workers may run in other folders.

        Raises:
            ConfigError: as `read_experiment`.
        """
        plain = self.plain()
        for section, key in (
            (plain["source"]["recordings"], "root"),
            (plain["train"], "init"),
            (plain["probes"], "root"),
            *((task, "root") for task in plain["probes"]["tasks"]),
            *((link, key) for link in plain["augment"] for key in ("recordings", "responses")),
        ):
            if section.get(key) is not None:
                section[key] = str(Path(section[key]).expanduser().absolute())
        return validate_experiment(plain)

    def with_values(self, values: Mapping[str, Any]) -> "Experiment":
        """Return a copy with dotted keys replaced, validated again.

        Raises:
            ConfigError: a key does not exist, or a value is not allowed.
        """
        plain = self.plain()
        for key, value in values.items():
            dotted_keys.assign(plain, key, value)
        return validate_experiment(plain, dict.fromkeys(values, "search"))


Scale = Literal["full", "small"]
SMALL = "small"
"""Section of a file with the dotted keys and values that `--scale small` changes."""


def read_experiment(
    file: Path | None, overrides: Mapping[str, str] = types.MappingProxyType({}), scale: Scale = "full"
) -> Experiment:
    """Read an experiment from a YAML file (or the defaults) and dotted overrides.

    Args:
        file: YAML file, or None for the defaults.
        overrides: dotted key -> text, which is read as YAML.
        scale: "small" also applies the file's `small` section.

    Raises:
        ConfigError: the file cannot be read, lacks the `small` section, a key does not exist, or a value is not
            allowed.
    """
    plain, small = _read(file)
    try:
        origins = dict.fromkeys(dotted_keys.flatten(plain), str(file))
    except RecursionError:
        raise ConfigError(f"--config {file}: a section contains itself, or is nested too deeply") from None
    if scale == "small":
        if not small:
            raise ConfigError(f"--scale small: {file} has no section `{SMALL}` with the settings to change")
        for key, value in small.items():
            dotted_keys.assign(plain, key, value)
            origins[key] = f"{file}, {SMALL}"
    for key, text in overrides.items():
        dotted_keys.assign(plain, key, dotted_keys.parse_value(text))
        origins[key] = f"--{key}"
    return validate_experiment(plain, origins)


def scale_changes(file: Path) -> dict[str, tuple[Any, Any]]:
    """Return what `--scale small` changes: dotted key -> (full value, small value)."""
    full, small = (read_experiment(file, scale=scale).plain() for scale in ("full", "small"))
    return {key: (dotted_keys.lookup(full, key), dotted_keys.lookup(small, key)) for key in _read(file)[1]}


def _read(file: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tree of a YAML or JSON file, and its `small` section."""
    if file is None:
        return {}, {}
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)  # YAML reads 1e-05 as text
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror or error}{_known_configs(file)}") from None
    except dotted_keys.YAML_ERRORS as error:
        kind = "JSON" if file.suffix == ".json" else "YAML"
        raise ConfigError(f"--config {file} is not {kind}: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--config {file}: expected sections such as pairs: and train:, found {type(found).__name__}")
    small = found.pop(SMALL, {})
    if not isinstance(small, dict):
        raise ConfigError(f"--config {file}: {SMALL} is {small!r}; expected dotted keys with values")
    return found, small


def _known_configs(file: Path) -> str:
    folder = file.parent
    known = sorted(path.name for path in folder.glob("*.yaml")) if folder.is_dir() else []
    return f"; {folder} has {', '.join(known)}" if known else ""


def validate_experiment(plain: dict[str, Any], origins: Mapping[str, str] = types.MappingProxyType({})) -> Experiment:
    """Return the experiment of plain nested data.

    Args:
        plain: the tree.
        origins: dotted key -> file or option that set it, for error messages.

    Raises:
        ConfigError: has a line for each fault.
    """
    try:
        experiment = Experiment.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(dotted_keys.explain(error, Experiment, origins)) from None
    _check_search(experiment)
    return experiment


def _check_search(experiment: Experiment) -> None:
    """Check that every searched key exists and allows every value of its space."""
    known = [key for key, _, _ in dotted_keys.leaves(Experiment)]
    for key, space in experiment.search.items():
        if key.startswith(("run.dir", "run.storage", "run.name", "search", "tune.")):
            raise ConfigError(f"search.{key}: {key} belongs to the sweep as a whole and cannot be searched")
        if key not in known and not any(key.startswith(f"{leaf}.") for leaf in known):
            raise ConfigError(f"search.{key}: there is no key {key}{dotted_keys.suggestion(key, known)}")
        for value in space.examples():
            plain = experiment.model_copy(update={"search": {}}).plain()
            dotted_keys.assign(plain, key, value)
            try:
                Experiment.model_validate(plain)
            except ValidationError as error:
                faults = dotted_keys.explain(error, Experiment, {key: f"search.{key}"})
                raise ConfigError(f"search.{key} holds a value that is not allowed: {faults}") from None
