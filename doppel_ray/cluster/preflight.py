"""What is refused before anything starts, because it would fail in the middle."""

import importlib.util
import itertools
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from doppel_ray.cluster import ray_env
from doppel_ray.config import variants
from doppel_ray.config.tune import OPTUNA, PAUSING
from doppel_ray.core import dotted_keys
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path
from doppel_ray.core.score_names import VALID
from doppel_ray.models.checkpoint import ModelSpec
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs import mirror
from doppel_ray.runs.columns import TRAIN, USAGE

if TYPE_CHECKING:
    from doppel_ray.config.experiment import Experiment
    from doppel_ray.probe.task import TaskSpec

log = logging.getLogger(__name__)

COPIES = 3
"""Numbers that a checkpoint holds for each weight: itself, and the two averages that Adam keeps of it."""


def check(experiment: "Experiment", folder: Path | None = None) -> list[str]:
    """Refuse before Ray starts what would fail in the middle, or what would make its scores wrong.

    Args:
        experiment: what is to run.
        folder: of the run that is gone on with; None: it is a new one.

    Returns:
        What a reader of the scores must know, a line for each; it has been logged.

    Raises:
        ConfigError: names the field, the value, and how to mend it.
    """
    from doppel_ray.cluster.nodes import local_node
    from doppel_ray.cluster.plan import plan_trial

    experiment.probes.check(experiment.synth.sample_rate)
    check_metric(experiment, is_new=folder is None)
    check_source(experiment)
    warnings = check_overlap(experiment)
    concurrent = None
    if ray_env.address() is None:
        concurrent = plan_trial(experiment, local_node()).concurrent
    check_tune(experiment, concurrent)
    check_folder(experiment, folder)
    check_storage(experiment, folder)
    return warnings


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
    size = COPIES * 4 * sum(weights.numel() for weights in ModelSpec.of(experiment.plain()).untrained().parameters())
    free = shutil.disk_usage(there).free
    room = free + sum(file.stat().st_size for file in place.glob("trials/*/checkpoints*/*/*") if folder is not None)
    told = (
        f"about {count * size / 1e9:,.2f} GB ({count} of {size / 1e6:,.1f} MB), and {there} has {free / 1e9:,.2f} GB "
        "left; make room, choose another --run.dir, or keep fewer: --train.keep '{best: 2, last: 1}'"
    )
    if count * size > room and tune.minutes is None and tune.pairs is None:  # else a trial may end sooner
        raise ConfigError(f"run.dir: the checkpoints of one trial take {told}")
    if count * size * (trials := variants.trial_count(experiment)) > room:
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
    S3Path.parse(experiment.run.storage).check()
    if folder is not None and (place := run_folder.copy_of(experiment, folder)) is not None:
        mirror.check_free(place, folder)


def check_metric(experiment: "Experiment", is_new: bool = True) -> None:
    """Refuse to choose trials by a score that no probe gives, or by a test score.

    Args:
        experiment: what is to run.
        is_new: whether it is a new run. A run from before there were validation scores goes on as it began, with a
            warning.

    Raises:
        ConfigError: names the metric, and those that there are.
    """
    from doppel_ray.probe.protocols import choosing

    metric, several = experiment.tune.metric, variants.trial_count(experiment) > 1
    if not metric.startswith("probe/"):
        told = [*TRAIN, *USAGE]
        if several and metric not in told:
            raise ConfigError(
                f"tune.metric is {metric!r}; expected probe/TASK/METRIC{VALID} or one of {', '.join(told)}"
                f"{dotted_keys.suggestion(metric, told)}"
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
            f"tune.metric is {metric!r}, but {task} is chosen by {', '.join(known)}"
            f"{dotted_keys.suggestion(metric, known)}"
        )
    if is_new:
        use = f"{metric}{VALID}" if f"{metric}{VALID}" in known else " or ".join(known)
        raise ConfigError(f"tune.metric: {metric} is a test score; use {use}")
    log.warning("tune.metric: %s is a test score, by which this run goes on choosing as it began", metric)


def _is_test_score(name: str, spec: "TaskSpec") -> bool:
    """Whether a task has a test score of this name, its own or a baseline's."""
    from doppel_ray.probe.evaluate import BASELINES
    from doppel_ray.probe.protocols import columns

    return name in columns(spec) or name in [f"{spec.metrics[0]}_{which}" for which in BASELINES]


def check_source(experiment: "Experiment") -> None:
    """Refuse recordings and checkpoints that are not there, or that the experiment cannot use.

    Raises:
        ConfigError: names the field, the value, and how to mend it.
    """
    from doppel_ray.data.recordings import Recordings
    from doppel_ray.models import checkpoint

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


OVERLAPPING = ("source.", "objective", "probes.")
"""How the searched keys begin that decide which recordings are trained and tested on, and whether labels are used."""


def check_overlap(experiment: "Experiment") -> list[str]:
    """Refuse to train with the labels of recordings that a probe tests on; warn where they are trained on without.

    Every combination of what is searched counts.

    Returns:
        The warnings, which are logged too.

    Raises:
        ConfigError: names the recordings, the tasks, and how to leave them out.
    """
    warnings: dict[str, None] = {}
    known: dict[str, tuple[int, str]] = {}
    keys = [key for key in experiment.search if key.startswith(OVERLAPPING)]
    for values in itertools.product(*(experiment.search[key].examples() for key in keys)):
        try:
            each = experiment.with_values(dict(zip(keys, values, strict=True))) if keys else experiment
        except ConfigError:
            continue  # values that do not go together are none of this check's
        if each.source.share == 0.0:
            continue
        made = each.source.recordings.model_dump_json() + each.probes.model_dump_json()
        if made not in known:
            known[made] = _overlap(each)
        labelled, told = known[made]
        if labelled and each.objective.needs_labels and each.source.recordings.labelled > 0.0:
            raise ConfigError(
                f"{told}, and objective.kind is {each.objective.kind}, which learns {labelled} of their labels; "
                f"{_LEAVE_OUT}, or choose an objective without labels"
            )
        if told:
            warnings[f"{told}: what is trained on them is not tested on unheard sounds; {_LEAVE_OUT}"] = None
    for line in warnings:
        log.warning("%s", line)
    return list(warnings)


_LEAVE_OUT = "train and test on different folds, such as source.recordings.folds [1, 2, 3, 4] and probes.test_folds [5]"


def _overlap(experiment: "Experiment") -> tuple[int, str]:
    """How many recordings with a label are trained and tested on, and a sentence about all such; "" for none."""
    from doppel_ray.data.recordings.catalogue import UNLABELLED
    from doppel_ray.probe import overlap

    catalogue = experiment.source.recordings.catalogue()
    tested = overlap.tested(experiment.probes.build(), experiment.synth.sample_rate)
    label = {catalogue.path(item): catalogue.labels[item] for item in range(len(catalogue))}
    both = overlap.shared(label, tested)
    if not both:
        return 0, ""
    path, other = next(iter(both.items()))
    tasks = ", ".join(sorted({tested[test] for test in both.values()}))
    same = "" if path == other else f", which is {other}"
    told = (
        f"source.recordings: {len(both)} of {len(label)} recordings are test examples of probes.tasks {tasks} "
        f"(same file or same content, first {path}{same})"
    )
    return sum(label[path] != UNLABELLED for path in both), told


def check_tune(experiment: "Experiment", concurrent: int | None) -> None:
    """Refuse what is not installed, and trials that would wait for others that have no room.

    Args:
        experiment: what is swept.
        concurrent: trials that run side by side; None: not known yet.

    Raises:
        ConfigError: says what is missing, and how to mend it.
    """
    scheduler, trials = experiment.tune.scheduler, variants.trial_count(experiment)
    if scheduler in PAUSING and concurrent is not None and trials > concurrent:
        raise ConfigError(
            f"tune.scheduler is {scheduler!r}, whose trials wait for each other: all {trials} must run side by side, "
            f"and {concurrent} fit; lower tune.samples or the trials' CPUs (train.cpus_per_worker, "
            "generators.0.num_cpus, probes.cpus), or raise tune.concurrent"
        )
    if scheduler == "pbt" and experiment.train.keep is not None:
        raise ConfigError(
            "train.keep is set, and tune.scheduler is 'pbt', which lets a trial go on from any checkpoint of another: "
            "leave train.keep null, which keeps them all"
        )
    if scheduler == "pbt" and not experiment.search:
        raise ConfigError("tune.scheduler is 'pbt', and search: is empty: there is nothing to change")
    if experiment.tune.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"tune.searcher is 'optuna', which is not installed: pip install '{OPTUNA}'")
    for name in experiment.tune.log_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tune.log_to has {name!r}, which is not installed: pip install 'doppel_ray[{name}]'")
