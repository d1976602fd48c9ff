"""Check before anything starts whatever would make a run fail later.

What the experiment refers to is checked in `experiment_checks`; the trials' resources, packages and storage here.
"""

import importlib.util
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from doppel_ray.cluster import ray_env
from doppel_ray.cluster.experiment_checks import check_metric, check_overlap, check_source
from doppel_ray.config import variants
from doppel_ray.config.tune import OPTUNA, PAUSING
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path
from doppel_ray.models.checkpoint import ModelSpec
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs import lease

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment

log = logging.getLogger(__name__)

VALUES_PER_WEIGHT = 3
"""Numbers in a checkpoint for each weight: the weight and Adam's two averages."""


def check(experiment: "Experiment", folder: Path | None = None) -> list[str]:
    """Refuse, before Ray starts, what would fail later or make the scores wrong.

    Args:
        experiment: what is to run.
        folder: folder of the run to continue; None for a new run.

    Returns:
        Warnings for readers of the scores; each has been logged.

    Raises:
        ConfigError: names the field, its value, and a remedy.
    """
    from doppel_ray.cluster.nodes import local_node
    from doppel_ray.cluster.plan import plan_trial

    experiment.probes.check(experiment.synth.sample_rate)
    check_metric(experiment, is_new=folder is None)
    check_source(experiment)
    warnings = check_overlap(experiment)
    concurrent = None
    if ray_env.address() is None:
        ray_env.check_temporary_folder()
        concurrent = plan_trial(experiment, local_node()).concurrent
    check_tune(experiment, concurrent)
    check_folder(experiment, folder)
    check_storage(experiment, folder)
    return warnings


def check_folder(experiment: "Experiment", folder: Path | None) -> None:
    """Refuse a folder that is not writable or too small for one trial's checkpoints; warn if too small for all.

    Args:
        experiment: what is to run.
        folder: as for `check`.

    Raises:
        ConfigError: names the folder and its free space.
    """
    place = (folder or experiment.run.dir).absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0")
    except OSError as error:
        why = f"cannot be written to: {error.strerror}"
        raise ConfigError(f"run.dir: {place} {why}; choose another --run.dir") from None
    train, tune = experiment.train, experiment.tune
    count = train.epochs if train.keep is None else train.keep.max_count(train.epochs)
    weights = sum(weights.numel() for weights in ModelSpec.of(experiment.plain()).untrained().parameters())
    size = VALUES_PER_WEIGHT * 4 * weights
    free = shutil.disk_usage(existing).free
    # A continued run's own checkpoints count as room: they are part of what is needed.
    room = free + sum(file.stat().st_size for file in place.glob("trials/*/checkpoints*/*/*") if folder is not None)
    needed = (
        f"about {count * size / 1e9:,.2f} GB ({count} of {size / 1e6:,.1f} MB), and {existing} has {free / 1e9:,.2f} "
        "GB left; free some space, choose another --run.dir, or keep fewer: --train.keep '{best: 2, last: 1}'"
    )
    if count * size > room and tune.minutes is None and tune.pairs is None:  # a budget may end trials sooner
        raise ConfigError(f"run.dir: the checkpoints of one trial need {needed}")
    if count * size * (trials := variants.trial_count(experiment)) > room:
        log.warning("the checkpoints of each of %d trials need %s", trials, needed)


def check_storage(experiment: "Experiment", folder: Path | None) -> None:
    """Refuse object storage that cannot be used, or that another process uses for the same run.

    Args:
        experiment: what is to run.
        folder: as for `check`.

    Raises:
        ConfigError: names the place and a remedy.
    """
    if experiment.run.storage is None:
        return
    S3Path.parse(experiment.run.storage).check()
    if folder is not None and (place := run_folder.storage_path(experiment, folder)) is not None:
        lease.check_free(place, folder)


def check_tune(experiment: "Experiment", concurrent: int | None) -> None:
    """Refuse missing packages, and schedulers that need more trials at once than fit.

    Args:
        experiment: what is swept.
        concurrent: number of trials that fit side by side; None while unknown.

    Raises:
        ConfigError: says what is missing, and a remedy.
    """
    scheduler, trials = experiment.tune.scheduler, variants.trial_count(experiment)
    if scheduler in PAUSING and concurrent is not None and trials > concurrent:
        raise ConfigError(
            f"tune.scheduler is {scheduler!r}, whose trials wait for each other: all {trials} must run side by side, "
            f"but only {concurrent} fit; lower tune.samples or the trials' CPUs (train.cpus_per_worker, "
            "generators.0.num_cpus, probes.cpus), or raise tune.concurrent"
        )
    if scheduler == "pbt" and experiment.train.keep is not None:
        raise ConfigError(
            "train.keep is set, but tune.scheduler 'pbt' may continue a trial from any checkpoint of another; "
            "set train.keep to null to keep them all"
        )
    if scheduler == "pbt" and not experiment.search:
        raise ConfigError("tune.scheduler is 'pbt', but search: is empty, so there are no values to change")
    if experiment.tune.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"tune.searcher is 'optuna', which is not installed: pip install '{OPTUNA}'")
    for name in experiment.tune.log_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tune.log_to has {name!r}, which is not installed: pip install 'doppel_ray[{name}]'")
