"""A run's folder: create it, and resume or extend it from its own run.json."""

import json
import platform
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from doppel_ray.config.experiment import Experiment, validate_experiment
from doppel_ray.config.tune import PAUSING
from doppel_ray.core import cli, dotted_keys, files, provenance
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path
from doppel_ray.runs import reader
from doppel_ray.runs.lock import check_locks

TUNE_STATE = "tune"
"""Folder of a run for Ray Tune's own files."""
TUNE_KEYS = ("samples", "repeats", "minutes", "pairs", "concurrent", "max_failures")
EXTENDABLE = ("search", *(f"tune.{key}" for key in TUNE_KEYS))
"""Keys, or prefixes of keys, that --extend may change: which trials there are, and nothing about each of them."""


def create(
    experiment: Experiment,
    file: Path | None,
    shrunk: Mapping[str, tuple[Any, Any]],
    warnings: Sequence[str] = (),
) -> Path:
    """Create a run's folder and write run.json.

    Args:
        experiment: to run in it.
        file: that the experiment was read from.
        shrunk: key -> (full, small) value of what --scale small changed.
        warnings: what a reader of the scores must know.

    Raises:
        ConfigError: the folder exists already, or cannot be created, or its file system has no locks.
    """
    stem = file.stem if file else "defaults"
    name = experiment.run.name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = experiment.run.dir / name
    if (place := storage_path(experiment, folder)) is not None and place.read(reader.RUN) is not None:
        raise _exists(name, str(place))
    try:
        check_locks(experiment.run.dir)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        about = {"experiment": experiment.plain(), "shrunk": dict(shrunk), "warnings": list(warnings)}
        _write(folder, {"id": f"{name}-{secrets.token_hex(4)}"} | provenance.gather() | about)
    except FileExistsError:
        raise _exists(name, str(folder)) from None
    except OSError as error:
        raise ConfigError(
            f"run.dir is {str(experiment.run.dir)!r}: {folder} cannot be created: {error.strerror}"
        ) from None
    return folder


def identity(folder: Path) -> str:
    """Return a run's identifier, unlike that of any other run of its name; of runs of older versions, the name."""
    return reader.read_about(folder).get("id", folder.resolve().name)


def check_visible(file: Path) -> None:
    """Refuse to work in a folder of a run that this machine does not share with the one that made it.

    Args:
        file: of the folder; what made the folder wrote it.

    Raises:
        ConfigError: names the machine and a remedy.
    """
    if not file.is_file():
        raise ConfigError(
            f"run.dir: {platform.node()} does not see {file}; "
            "choose a --run.dir on a file system that all nodes share, at the same path, or mount it there"
        )


def _exists(name: str, place: str) -> ConfigError:
    return ConfigError(
        f"run.name is {name!r}: {place} already holds a run; choose another --run.name, or resume it: "
        f"--resume {cli.quoted(place)}"
    )


def storage_path(experiment: Experiment, folder: Path) -> S3Path | None:
    """Return where a run's copy in object storage lies; None without `run.storage`."""
    return None if experiment.run.storage is None else S3Path.parse(experiment.run.storage) / folder.resolve().name


def relocate(folder: Path, place: S3Path) -> None:
    """Record in run.json that the run's folder is here now, and its copy at `place`."""
    plain = recorded_experiment(folder).plain()
    plain["run"] |= {"dir": str(folder.parent), "storage": str(place.parent)}
    update(folder, experiment=plain)


def recorded_experiment(folder: Path) -> Experiment:
    """Return the experiment of a run's folder.

    Raises:
        ConfigError: it is not a run's folder, or is damaged.
    """
    about = reader.read_about(folder)
    return validate_experiment(about["experiment"], dict.fromkeys(about["experiment"], str(folder / reader.RUN)))


def extended_experiment(folder: Path, overrides: Mapping[str, str]) -> Experiment:
    """Return a folder's experiment with more trials.

    Args:
        folder: of the run.
        overrides: dotted key -> text as typed.

    Raises:
        ConfigError: a key would change existing trials, or a value is not allowed.
    """
    plain = recorded_experiment(folder).plain()
    if plain["tune"]["scheduler"] in PAUSING:
        raise ConfigError(
            f"--extend: trials of tune.scheduler {plain['tune']['scheduler']} wait for each other; none can join"
        )
    for key, text in overrides.items():
        if not key.startswith(EXTENDABLE):
            raise ConfigError(
                f"--extend adds trials to a sweep, and --{key} would change the existing ones; "
                f"it takes {', '.join(f'--{name}' for name in EXTENDABLE)}"
            )
        dotted_keys.assign(plain, key, dotted_keys.parse_value(text))
    return validate_experiment(plain, {key: f"--{key}" for key in overrides})


def check_same(folder: Path, experiment: Experiment) -> None:
    """Refuse to resume a run with other settings than it was started with, but for what --extend may have changed.

    Raises:
        ConfigError: names the settings.
    """
    known, given = _settings(recorded_experiment(folder)), _settings(experiment)
    keys = [key for key in {**known, **given} if known.get(key) != given.get(key)]
    if changed := [key for key in keys if not key.startswith(("run.", *EXTENDABLE))]:
        raise ConfigError(
            f"--resume-if-exists: {folder} was started with another {', '.join(changed)}; "
            "give the settings of its start, or choose another --run.name"
        )


def _settings(experiment: Experiment) -> dict[str, Any]:
    """Return section.key -> value."""
    sections = experiment.plain().items()
    return {
        f"{section}.{key}": value
        for section, values in sections
        for key, value in (values.items() if isinstance(values, dict) else enumerate(values))
    }


def record_extension(folder: Path, experiment: Experiment) -> None:
    """Record an extended experiment in run.json, with the time, command and commit of the extension."""
    about = reader.read_about(folder)
    now = provenance.gather()
    extension = {name: now[name] for name in ("time", "command", "commit")}
    update(folder, experiment=experiment.plain(), extended=[*about.get("extended", []), extension])


def update(folder: Path, **entries: Any) -> None:
    """Add entries to run.json, or replace them."""
    _write(folder, reader.read_about(folder) | entries)


def _write(folder: Path, about: dict[str, Any]) -> None:
    files.replace(folder / reader.RUN, json.dumps(about, indent=1))
