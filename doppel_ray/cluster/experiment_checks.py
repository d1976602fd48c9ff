"""Check what an experiment refers to: the metric, the recordings, the checkpoint to start from."""

import itertools
import logging
from typing import TYPE_CHECKING

from doppel_ray.config import variants
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import VALID
from doppel_ray.data.recordings import Recordings
from doppel_ray.data.recordings.catalogue import UNLABELLED
from doppel_ray.models import checkpoint
from doppel_ray.probe import overlap
from doppel_ray.probe.evaluate import BASELINES
from doppel_ray.probe.protocols import choosing, columns
from doppel_ray.runs.columns import TRAIN, USAGE

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment
    from doppel_ray.probe.task import TaskSpec

log = logging.getLogger(__name__)

OVERLAP_KEYS = ("source.", "objective", "probes.")
"""Prefixes of the searched keys that decide which recordings are trained and tested on, and whether labels are used."""
_LEAVE_OUT = "train and test on different folds, such as source.recordings.folds [1, 2, 3, 4] and probes.test_folds [5]"


def check_metric(experiment: "Experiment", is_new: bool = True) -> None:
    """Refuse a tune.metric that no probe reports, or that is a test score.

    Args:
        experiment: what is to run.
        is_new: whether the run is new. An old run that chose by a test score continues to, with a warning.

    Raises:
        ConfigError: names the metric and the available ones.
    """
    metric, several = experiment.tune.metric, variants.trial_count(experiment) > 1
    if not metric.startswith("probe/"):
        available = [*TRAIN, *USAGE]
        if several and metric not in available:
            raise ConfigError(
                f"tune.metric is {metric!r}; expected probe/TASK/METRIC{VALID} or one of {', '.join(available)}"
                f"{dotted_keys.suggestion(metric, available)}"
            )
        return
    task = metric.split("/")[1]
    tasks = {entry.name: entry for entry in experiment.probes.build()}
    if task not in tasks:
        if several:
            raise ConfigError(
                f"tune.metric is {metric!r}, but probes.tasks are {', '.join(tasks) or 'none'}: "
                f"add {task}, or choose another metric such as loss"
            )
        return
    spec = tasks[task].spec(experiment.synth.sample_rate)
    known = [f"probe/{task}/{name}" for name in choosing(spec)]
    if metric in known:
        return
    if not _is_test_score(metric.removeprefix(f"probe/{task}/"), spec):
        raise ConfigError(
            f"tune.metric is {metric!r}, but {task} has the validation scores {', '.join(known)}"
            f"{dotted_keys.suggestion(metric, known)}"
        )
    if is_new:
        use = f"{metric}{VALID}" if f"{metric}{VALID}" in known else " or ".join(known)
        raise ConfigError(f"tune.metric: {metric} is a test score; use {use}")
    log.warning("tune.metric: %s is a test score; this run continues to choose by it, as it began", metric)


def _is_test_score(name: str, spec: "TaskSpec") -> bool:
    """Return whether a task has a test score of this name, its own or a baseline's."""
    return name in columns(spec) or name in [f"{spec.metrics[0]}_{which}" for which in BASELINES]


def check_source(experiment: "Experiment") -> None:
    """Refuse recordings and checkpoints that are missing or that the experiment cannot use.

    Raises:
        ConfigError: names the field, its value, and a remedy.
    """
    train, synth = experiment.train, experiment.synth
    if train.init is not None:
        encoder = checkpoint.recipe(train.init).encoder
        if (encoder.kind, encoder.width) != (experiment.encoder.kind, experiment.encoder.width):
            raise ConfigError(
                f"train.init is {train.init}, whose encoder is {encoder}, but encoder is {experiment.encoder}"
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
            f"source.recordings: {experiment.source.recordings.root} has {usable} usable recording, and segments of "
            f"one recording are not negatives of each other; objective.kind {experiment.objective.kind} needs at least "
            "2 recordings, or synthetic pairs as well (source.mix)"
        )
    if experiment.objective.needs_labels and not recordings.classes:
        raise ConfigError(
            f"objective.kind is {experiment.objective.kind}, which needs labels, and the recordings in "
            f"{experiment.source.recordings.root} (source.recordings.layout "
            f"{experiment.source.recordings.layout}) have none"
        )


def check_overlap(experiment: "Experiment") -> list[str]:
    """Refuse to train with labels on recordings that a probe tests on; warn if they are trained on without labels.

    Checks every combination of searched values.

    Returns:
        The warnings, which are logged too.

    Raises:
        ConfigError: names the recordings, the tasks, and how to leave the recordings out.
    """
    warnings: dict[str, None] = {}
    known: dict[str, tuple[int, str]] = {}
    keys = [key for key in experiment.search if key.startswith(OVERLAP_KEYS)]
    for values in itertools.product(*(experiment.search[key].examples() for key in keys)):
        try:
            each = experiment.with_values(dict(zip(keys, values, strict=True))) if keys else experiment
        except ConfigError:
            continue  # an invalid combination; each trial reports its own
        if each.source.share == 0.0:
            continue
        compared = each.source.recordings.model_dump_json() + each.probes.model_dump_json()
        if compared not in known:
            known[compared] = _overlap(each)
        labelled, fault = known[compared]
        if labelled and each.objective.needs_labels and each.source.recordings.labelled > 0.0:
            raise ConfigError(
                f"{fault}, and objective.kind {each.objective.kind} trains on {labelled} of their labels; "
                f"{_LEAVE_OUT}, or choose an objective without labels"
            )
        if fault:
            warnings[f"{fault}: the model is tested on sounds that it was trained on; {_LEAVE_OUT}"] = None
    for line in warnings:
        log.warning("%s", line)
    return list(warnings)


def _overlap(experiment: "Experiment") -> tuple[int, str]:
    """Return how many labelled recordings are trained and tested on, and a sentence about all that are; "" if none."""
    catalogue = experiment.source.recordings.catalogue()
    tested = overlap.tested(experiment.probes.build(), experiment.synth.sample_rate)
    label = {catalogue.path(item): catalogue.labels[item] for item in range(len(catalogue))}
    both = overlap.shared(label, tested)
    if not both:
        return 0, ""
    path, other = next(iter(both.items()))
    tasks = ", ".join(sorted({tested[test] for test in both.values()}))
    same = "" if path == other else f", which is {other}"
    fault = (
        f"source.recordings: {len(both)} of {len(label)} recordings are test examples of probes.tasks {tasks} "
        f"(same file or same content, first {path}{same})"
    )
    return sum(label[path] != UNLABELLED for path in both), fault
