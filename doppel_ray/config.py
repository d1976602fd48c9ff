"""The experiment: every section put together, read from YAML and dotted overrides, with errors a person can act on."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from doppel_ray.audio import AugmentConfig, FrontendConfig
from doppel_ray.data import DataConfig, GeneratorConfig
from doppel_ray.models import EncoderConfig, HeadConfig
from doppel_ray.objectives import ObjectiveConfig
from doppel_ray.optim import OptimConfig
from doppel_ray.pairs import PairsConfig
from doppel_ray.probe import ProbesConfig
from doppel_ray.search import Space, TuneConfig
from doppel_ray.section import ConfigError, Section
from doppel_ray.synth import SynthConfig
from doppel_ray.train import TrainConfig


class RunConfig(Section):
    """Where results go, and the seed of everything."""

    dir: Path = Path("runs")
    """Folder of all runs; also TensorBoard's log directory."""
    name: str | None = None
    """Name of this run's folder; null: the config's name and the time."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the stream, the weights and the search."""


class Experiment(Section):
    """One experiment. A file in tune_configs/ is this tree."""

    run: RunConfig = RunConfig()
    synth: SynthConfig = SynthConfig()
    pairs: PairsConfig = PairsConfig()
    frontend: FrontendConfig = FrontendConfig()
    augment: tuple[AugmentConfig, ...] = ()
    """Augmentations of each view, in order."""
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    generators: tuple[GeneratorConfig, ...] = (GeneratorConfig(),)
    """Pools of generators."""
    probes: ProbesConfig = ProbesConfig()
    tune: TuneConfig = TuneConfig()
    search: dict[str, Space] = {}
    """What a sweep varies: dotted keys, each with one of grid, choice, uniform, loguniform, randint."""

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if len(self.generators) != 1:
            raise ValueError(f"generators has {len(self.generators)} pools; exactly one is supported")
        return self

    def plain(self) -> dict[str, Any]:
        """The experiment as plain JSON data, which `Experiment.model_validate` reads back."""
        return self.model_dump(mode="json")

    def with_values(self, values: Mapping[str, Any]) -> "Experiment":
        """A copy with dotted keys replaced and everything checked again.

        Raises:
            ConfigError: a key does not exist, or a value is not allowed.
        """
        tree = self.plain()
        for key, value in values.items():
            _set(tree, key, value)
        return validate(tree, dict.fromkeys(values, "search"))


# --- the tree of keys ---------------------------------------------------------------------------------------------------


def leaves(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every dotted key of the tree: (key, annotation, pydantic's FieldInfo)."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", annotation, field


def keys() -> list[str]:
    return [key for key, _, _ in leaves()]


def suggestion(word: str, known: typing.Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:  # a right last name under a wrong section
        near = [key for key in known if key.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {near[0]}?" if near else ""


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    if key.startswith("search."):  # the keys of `search` are dotted themselves
        tree.setdefault("search", {})[key.removeprefix("search.")] = value
        return
    *sections, name = key.split(".")
    for section, following in zip(sections, [*sections[1:], name], strict=True):
        fresh: Any = [] if following.isdigit() else {}
        tree = _enter(tree, section, fresh, key)
    if isinstance(tree, list):
        _enter(tree, name, value, key)
        tree[int(name)] = value
    else:
        tree[name] = value


def _enter(tree: Any, part: str, fresh: Any, key: str) -> Any:
    """The branch `part` of a tree, made if it is missing; one that is no branch is replaced.

    So `pairs.delta.pitch` replaces a `pairs.delta` that was one number, and `generators.0.num_cpus` reaches into the list.
    """
    if isinstance(tree, list):
        if int(part) > len(tree):
            raise ConfigError(f"{key}: the list has {len(tree)} entries; expected a position from 0 to {len(tree)}")
        if int(part) == len(tree):
            tree.append(fresh)
        return tree[int(part)]
    if not isinstance(tree.get(part), type(fresh)):
        tree[part] = fresh
    return tree[part]


# --- reading and checking -------------------------------------------------------------------------------------------------


def read(file: Path | None, overrides: Mapping[str, str] = types.MappingProxyType({})) -> Experiment:
    """An experiment from a YAML file (or the defaults) and dotted overrides.

    Args:
        file: YAML, or None.
        overrides: dotted key -> text as typed, which is read as YAML.

    Raises:
        ConfigError: the file cannot be read, a key does not exist, or a value is not allowed.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        try:
            found = yaml.safe_load(file.read_text())
        except OSError as error:
            raise ConfigError(f"--config {file}: {error.strerror or error}{_known_configs(file)}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"--config {file} is not YAML: {error}") from None
        if not isinstance(found, dict):
            raise ConfigError(f"--config {file}: expected sections such as pairs: and train:, found {type(found).__name__}")
        tree = found
        origins = dict.fromkeys(_flatten(tree), str(file))
    for key, text in overrides.items():
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        _set(tree, key, value)
        origins[key] = f"--{key}"
    return validate(tree, origins)


def _known_configs(file: Path) -> str:
    folder = file.parent
    known = sorted(path.name for path in folder.glob("*.yaml")) if folder.is_dir() else []
    return f"; {folder} has {', '.join(known)}" if known else ""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")


def validate(tree: dict[str, Any], origins: Mapping[str, str] = types.MappingProxyType({})) -> Experiment:
    """Check a plain tree.

    Args:
        tree: nested plain data.
        origins: dotted key -> where it came from, for the message.

    Raises:
        ConfigError: one line for every fault.
    """
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault, origins) for fault in error.errors())) from None
    _check_search(experiment)
    return experiment


def _explain(fault: Any, origins: Mapping[str, str]) -> str:
    # pydantic puts the tags of unions into the path; only names of the tree and list positions are the user's.
    path = [str(part) for part in fault["loc"] if isinstance(part, int) or part.isidentifier() or "." in part]
    key = ".".join(path)
    origin = next((origins[k] for k in (key, *_parents(key)) if k in origins), None)
    where = f" (from {origin})" if origin and origin != f"--{key}" else ""
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key{suggestion(key, keys())}{where}"
    message = fault["msg"].removeprefix("Value error, ")
    found = fault.get("input")
    value = f" is {found!r}" if key and not isinstance(found, (dict, BaseModel)) else ""
    return f"{key or 'experiment'}{value}: {message[0].lower()}{message[1:]}{where}"


def _parents(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def _check_search(experiment: Experiment) -> None:
    """Every searched key exists and takes every value that the search may draw."""
    known = keys()
    for key, space in experiment.search.items():
        if key.startswith(("run.dir", "run.name", "search", "tune.")):
            raise ConfigError(f"search.{key}: {key} belongs to the sweep as a whole and cannot be searched")
        if key not in known and not key.startswith("pairs.delta."):
            raise ConfigError(f"search.{key}: there is no key {key}{suggestion(key, known)}")
        for value in space.examples():
            tree = experiment.model_copy(update={"search": {}}).plain()
            _set(tree, key, value)
            try:
                Experiment.model_validate(tree)
            except ValidationError as error:
                faults = "\n".join(_explain(fault, {key: f"search.{key}"}) for fault in error.errors())
                raise ConfigError(f"search.{key} holds a value that is not allowed: {faults}") from None


def annotation_name(annotation: Any) -> str:
    """A type as `--help` shows it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Literal:
        return "|".join(str(arg) for arg in args)
    if origin is typing.Annotated:
        return annotation_name(args[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join("null" if arg is type(None) else annotation_name(arg) for arg in args)
    if origin in (tuple, list):
        return "LIST"
    if origin is dict:
        return "MAPPING"
    return getattr(annotation, "__name__", str(annotation)).upper()
