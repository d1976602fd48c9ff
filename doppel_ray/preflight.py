"""What is refused before anything starts, because it would fail in the middle."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from doppel_ray import board, environment, mirror, points, run_folder, steer, tree
from doppel_ray.checkpoint import Recipe
from doppel_ray.section import ConfigError
from doppel_ray.storage import Place

if TYPE_CHECKING:
    from doppel_ray.config import Experiment

log = logging.getLogger(__name__)

COPIES = 3
"""Numbers that a checkpoint holds for each weight: itself, and the two averages that Adam keeps of it."""


def check(experiment: "Experiment", folder: Path | None = None) -> None:
    """Refuse before Ray starts what would fail in the middle.

    Args:
        experiment: what is to run.
        folder: of the run that is gone on with; None: it is a new one.

    Raises:
        ConfigError: names the field, the value, and how to mend it.
    """
    from doppel_ray import cluster, resources

    experiment.probes.check(experiment.synth.sample_rate)
    check_metric(experiment)
    check_source(experiment)
    concurrent = None
    if environment.address() is None:
        concurrent = resources.plan(experiment, cluster.local_node()).concurrent
    steer.check(experiment, concurrent)
    check_folder(experiment, folder)
    check_storage(experiment, folder)


def check_folder(experiment: "Experiment", folder: Path | None) -> None:
    """Refuse a folder that cannot be written to, or has no room for one trial's checkpoints; warn of less than all.

    Args:
        experiment: what is to run.
        folder: as for `check`.

    Raises:
        ConfigError: names the folder, and what it has.
    """
    place = (folder or experiment.run.dir).absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except OSError as error:
        why = f"cannot be written to: {error.strerror}"
        raise ConfigError(f"run.dir: {place} {why}; choose another --run.dir") from None
    train, tune = experiment.train, experiment.tune
    count = train.epochs if train.keep is None else train.keep.most(train.epochs)
    size = COPIES * 4 * sum(weights.numel() for weights in Recipe.of(experiment.plain()).untrained().parameters())
    free = shutil.disk_usage(there).free
    room = free + sum(file.stat().st_size for file in place.glob("trials/*/checkpoints*/*/*") if folder is not None)
    told = (
        f"about {count * size / 1e9:,.2f} GB ({count} of {size / 1e6:,.1f} MB), and {there} has {free / 1e9:,.2f} GB "
        "left; make room, choose another --run.dir, or keep fewer: --train.keep '{best: 2, last: 1}'"
    )
    if count * size > room and tune.minutes is None and tune.pairs is None:  # else a trial may end sooner
        raise ConfigError(f"run.dir: the checkpoints of one trial take {told}")
    if count * size * (trials := points.trial_count(experiment)) > room:
        log.warning("the checkpoints of each of %d trials take %s", trials, told)


def check_storage(experiment: "Experiment", folder: Path | None) -> None:
    """Refuse object storage that cannot be used, or that another process uses for the same run.

    Args:
        experiment: what is to run.
        folder: as for `check`.

    Raises:
        ConfigError: names the place, and how to mend it.
    """
    if experiment.run.storage is None:
        return
    Place.parse(experiment.run.storage).check()
    if folder is not None and (place := run_folder.copy_of(experiment, folder)) is not None:
        mirror.check_free(place, folder)


def check_metric(experiment: "Experiment") -> None:
    """Refuse to judge trials by a score that no probe gives.

    Raises:
        ConfigError: names the metric, and those that there are.
    """
    from doppel_ray.probe.protocols import columns

    metric = experiment.tune.metric
    if points.trial_count(experiment) == 1:
        return
    if not metric.startswith("probe/"):
        told = [*board.TRAIN, *board.USAGE]
        if metric not in told:
            raise ConfigError(
                f"tune.metric is {metric!r}; expected probe/TASK/METRIC or one of {', '.join(told)}"
                f"{tree.suggestion(metric, told)}"
            )
        return
    _, task, *rest = metric.split("/")
    tasks = {entry.name: entry for entry in experiment.probes.build()}
    if task not in tasks:
        raise ConfigError(
            f"tune.metric is {metric!r}, but probes.tasks are {', '.join(tasks) or 'none'}: "
            f"add {task}, or choose another metric such as loss"
        )
    known = columns(tasks[task].questions(experiment.synth.sample_rate))
    if "/".join(rest) not in known:
        near = tree.suggestion(metric, [f"probe/{task}/{name}" for name in known])
        raise ConfigError(f"tune.metric is {metric!r}, but {task} gives {', '.join(known)}{near}")


def check_source(experiment: "Experiment") -> None:
    """Refuse recordings and checkpoints that are not there, or that the experiment cannot use.

    Raises:
        ConfigError: names the field, the value, and how to mend it.
    """
    from doppel_ray import checkpoint
    from doppel_ray.recordings import Recordings

    train, synth = experiment.train, experiment.synth
    if train.init is not None:
        encoder = checkpoint.recipe(train.init).encoder
        if (encoder.kind, encoder.width) != (experiment.encoder.kind, experiment.encoder.width):
            raise ConfigError(
                f"train.init is {train.init}, whose encoder is {encoder}; encoder is {experiment.encoder}"
            )
    if experiment.source.share == 0.0:
        return
    recordings = Recordings(experiment.source.recordings, synth.sample_rate, synth.duration, experiment.run.seed)
    left_out = recordings.check()
    for path, reason in left_out.items():
        log.warning("source.recordings: %s is left out: %s", path, reason)
    usable = len(recordings) - len(left_out)
    if usable < 2 and experiment.source.share == 1.0 and experiment.objective.kind != "cross_entropy":
        raise ConfigError(
            f"source.recordings: {usable} recording in {experiment.source.recordings.root}, whose segments are no "
            f"negatives of each other; objective.kind {experiment.objective.kind} needs at least 2, or synthetic pairs "
            "beside it (source.mix)"
        )
    if experiment.objective.needs_labels and not recordings.classes:
        raise ConfigError(
            f"objective.kind is {experiment.objective.kind}, which needs labels, and the recordings in "
            f"{experiment.source.recordings.root} (source.recordings.layout "
            f"{experiment.source.recordings.layout}) have none"
        )
