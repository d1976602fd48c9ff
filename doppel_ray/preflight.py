"""What is refused before anything starts, because it would fail in the middle."""

import logging
from typing import TYPE_CHECKING

from doppel_ray import board, environment, points, steer, tree
from doppel_ray.section import ConfigError

if TYPE_CHECKING:
    from doppel_ray.config import Experiment

log = logging.getLogger(__name__)


def check(experiment: "Experiment") -> None:
    """Refuse before Ray starts what would fail in the middle.

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
    for path, reason in recordings.check().items():
        log.warning("source.recordings: %s is left out: %s", path, reason)
    if experiment.objective.needs_labels and not recordings.classes:
        raise ConfigError(
            f"objective.kind is {experiment.objective.kind}, which needs labels, and the recordings in "
            f"{experiment.source.recordings.root} (source.recordings.layout "
            f"{experiment.source.recordings.layout}) have none"
        )
