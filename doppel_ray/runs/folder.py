"""A run's folder: made once, gone on with or extended from what it says of itself."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from doppel_ray.config.experiment import Experiment, validate_experiment
from doppel_ray.config.tune import PAUSING
from doppel_ray.core import dotted_keys, files, provenance
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path
from doppel_ray.runs import reader

TUNE_STATE = "tune"
"""Folder of a run where Ray Tune keeps what is its own."""
MORE = ("search", "tune.samples", "tune.repeats", "tune.minutes", "tune.pairs", "tune.concurrent", "tune.max_failures")
"""Keys, or how they begin, that --extend may change: they say which trials there are, and nothing of what each is."""


def make(
    experiment: Experiment,
    file: Path | None,
    shrunk: Mapping[str, tuple[Any, Any]],
    warnings: Sequence[str] = (),
) -> Path:
    """Make the run's folder and write what it is.

    Args:
        experiment: what will run in it.
        file: where that was read from.
        shrunk: what --scale small changed.
        warnings: what a reader of its scores must know.

    Raises:
        ConfigError: it already holds something, or cannot be made.
    """
    stem = file.stem if file else "defaults"
    name = experiment.run.name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = experiment.run.dir / name
    if (place := copy_of(experiment, folder)) is not None and place.read(reader.RUN) is not None:
        raise ConfigError(
            f"run.name is {name!r}: {place} already holds a run; "
            f"choose another --run.name, or go on with it: --resume '{place}'"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        about = {"experiment": experiment.plain(), "shrunk": dict(shrunk), "warnings": list(warnings)}
        _write(folder, provenance.gather() | about)
    except FileExistsError:
        raise ConfigError(
            f"run.name is {name!r}: {folder} already holds a run; "
            f"choose another --run.name, or go on with it: --resume {folder}"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"run.dir is {str(experiment.run.dir)!r}: {folder} cannot be made: {error.strerror}"
        ) from None
    return folder


def copy_of(experiment: Experiment, folder: Path) -> S3Path | None:
    """Where object storage has the copy of a run's folder; None: there is to be none."""
    return None if experiment.run.storage is None else S3Path.parse(experiment.run.storage) / folder.resolve().name


def moved(folder: Path, place: S3Path) -> None:
    """Let a run's folder say that it is here now, and its copy at a place."""
    plain = recorded(folder).plain()
    plain["run"] |= {"dir": str(folder.parent), "storage": str(place.parent)}
    note(folder, experiment=plain)


def recorded(folder: Path) -> Experiment:
    """The experiment that a folder says it is.

    Raises:
        ConfigError: it is no run's folder, or is damaged.
    """
    about = reader.about(folder)
    return validate_experiment(about["experiment"], dict.fromkeys(about["experiment"], str(folder / reader.RUN)))


def more(folder: Path, overrides: Mapping[str, str]) -> Experiment:
    """What a folder's experiment becomes with more trials.

    Args:
        folder: the run's.
        overrides: dotted key -> text as typed.

    Raises:
        ConfigError: a key would change the trials that there are; or a value is not allowed.
    """
    plain = recorded(folder).plain()
    if plain["tune"]["scheduler"] in PAUSING:
        raise ConfigError(
            f"--extend: trials of tune.scheduler {plain['tune']['scheduler']} wait for each other; none can join"
        )
    for key, text in overrides.items():
        if not key.startswith(MORE):
            raise ConfigError(
                f"--extend adds trials to a sweep, and --{key} would change those that there are; "
                f"it takes {', '.join(f'--{name}' for name in MORE)}"
            )
        dotted_keys.assign(plain, key, dotted_keys.parse_value(text))
    return validate_experiment(plain, {key: f"--{key}" for key in overrides})


def extend(folder: Path, experiment: Experiment) -> None:
    """Let a run's folder say that it is to have more trials."""
    about = reader.about(folder)
    now = provenance.gather()
    told = {name: now[name] for name in ("time", "command", "commit")}
    note(folder, experiment=experiment.plain(), extended=[*about.get("extended", []), told])


def note(folder: Path, **more: Any) -> None:
    """Let a run's folder say more of what it is."""
    _write(folder, reader.about(folder) | more)


def _write(folder: Path, about: dict[str, Any]) -> None:
    files.replace(folder / reader.RUN, json.dumps(about, indent=1))
