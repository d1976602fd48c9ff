"""Sweeps: `python -m doppel_ray.tune`, the main job."""

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

import doppel_ray.environment  # noqa: F401  # before anything of Ray's
from doppel_ray import command, config, environment, live, provenance, report, steer, tree
from doppel_ray.config import Experiment
from doppel_ray.section import ConfigError

log = logging.getLogger(__name__)

DEFAULT_CONFIG = Path(__file__).parent.parent / "tune_configs" / "quickstart.yaml"
TUNE_STATE = "tune"
"""Folder of a run where Ray Tune keeps what it needs to go on."""


def check(experiment: Experiment) -> None:
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


def check_metric(experiment: Experiment) -> None:
    """Refuse to judge trials by a score that no probe gives.

    Raises:
        ConfigError: names the metric, and those that there are.
    """
    from doppel_ray.probe.protocols import columns

    metric = experiment.tune.metric
    if not metric.startswith("probe/") or steer.trial_count(experiment) == 1:
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


def check_source(experiment: Experiment) -> None:
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


def main(argv: Sequence[str] | None = None) -> int:
    return start("tune", "Train and probe a sweep of experiments.", DEFAULT_CONFIG, argv)


def start(module: str, description: str, default: Path | None, argv: Sequence[str] | None) -> int:
    """The command lines of `tune` and of `train`, which runs a sweep of one trial.

    Args:
        module: "tune" or "train".
        description: first line of its help.
        default: configuration file without --config.
        argv: arguments, or None for the process's own.

    Returns:
        The exit code.
    """
    parser = command.Parser(module, description)
    parser.add_argument(
        "--resume", type=Path, metavar="RUN_DIR", help="go on with an interrupted run; takes no other setting"
    )
    parser.add_argument("--plain", action="store_true", help="print lines instead of a live table")
    parser.add_argument(
        "--scale",
        choices=get_args(config.Scale),
        default="full",
        help="small: as the file's `small` section shrinks it, to what two cores finish in minutes",
    )
    parser.add_experiment(default)
    args = parser.parse(argv)
    if args.resume:
        if args.overrides or args.config != default or args.scale != "full":
            raise ConfigError(
                "--resume goes on with the run as it was configured; leave out --config and every other setting"
            )
        experiment = config.validate(report.about(args.resume)["experiment"])
        check(experiment)
        folder = args.resume
    else:
        experiment = config.read(args.config, args.overrides, args.scale).located()
        if module == "train":
            experiment = experiment.model_copy(
                update={"search": {}, "tune": experiment.tune.model_copy(update={"scheduler": "fifo", "samples": 1})}
            )
        check(experiment)
        folder = new_folder(experiment, args.config, config.shrunk(args.config) if args.scale == "small" else {})
    return sweep(
        experiment, folder, command.screen(args.plain, sys.__stdout__), resume=bool(args.resume), plain=args.plain
    )


def new_folder(experiment: Experiment, file: Path | None, shrunk: Mapping[str, tuple[Any, Any]]) -> Path:
    """Make the run's folder and write what it is.

    Args:
        experiment: what will run in it.
        file: where that was read from.
        shrunk: what --scale small changed.

    Raises:
        ConfigError: it already holds something, or cannot be made.
    """
    stem = file.stem if file else "defaults"
    name = experiment.run.name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = experiment.run.dir / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        raise ConfigError(
            f"run.name is {name!r}: {folder} already holds a run; "
            f"choose another --run.name, or go on with it: --resume {folder}"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"run.dir is {str(experiment.run.dir)!r}: {folder} cannot be made: {error.strerror}"
        ) from None
    about = provenance.gather() | {"experiment": experiment.plain(), "shrunk": dict(shrunk)}
    (folder / report.RUN).write_text(json.dumps(about, indent=1))
    return folder


def sweep(experiment: Experiment, folder: Path, console: Console, resume: bool, plain: bool) -> int:
    """Run a sweep into its folder, or go on with one; returns the exit code."""
    from doppel_ray import cluster, resources

    began = time.monotonic()
    total = steer.trial_count(experiment)
    console.print(f"{total} {'trial' if total == 1 else 'trials'} into {folder}")
    go_on = f"go on with: python -m doppel_ray.tune --resume {folder}"
    result = "interrupted"
    try:
        with cluster.hush(folder / "ray.log"), contextlib.ExitStack() as stack:
            stack.callback(cluster.disconnect)
            if environment.address() is None:
                threading.Thread(target=_compile_ahead, args=(experiment, console), daemon=True).start()
            nodes, where = cluster.connect()
            command.stop_on_sigterm()
            plan = resources.plan(experiment, nodes)
            steer.check(experiment, plan.concurrent)
            for line in (where, *plan.lines()):
                console.print(line)
            result = _fit(experiment, folder.resolve(), plan.concurrent, total, resume, plain)
    except KeyboardInterrupt:
        pass  # told below, with what there is
    minutes = (time.monotonic() - began) / 60
    report.publish(folder, console)
    if result == "interrupted":
        console.print(f"interrupted after {minutes:.1f} minutes; nothing that was checkpointed is lost. {go_on}")
        return command.INTERRUPTED
    if result == "failed":
        console.print(f"some trials failed: see trial.log in their folders under {folder / 'trials'}. {go_on}")
        return 1
    console.print(f"done in {minutes:.1f} minutes; results are in {folder}")
    return 0


def _compile_ahead(experiment: Experiment, console: Console) -> None:
    """Compile the synthesizer while Ray starts, so that the generators find it ready; once on a machine."""
    from doppel_ray.cache import cache_folder
    from doppel_ray.synth import compiled

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells of a CUDA that nobody asked for
    if experiment.source.share == 1.0:
        return
    synth = experiment.synth.build()
    synth.pairs(0, range(1), 0.0)
    if compiled.spent:
        console.print(f"compiled the synthesizer in {compiled.spent:.0f} s; it is kept in {cache_folder()}")


def _fit(experiment: Experiment, folder: Path, concurrent: int, total: int, resume: bool, plain: bool) -> str:
    """Ray Tune itself; returns "finished", "failed" or "interrupted"."""
    from ray import tune
    from ray.tune.logger import JsonLoggerCallback

    from doppel_ray import trial
    from doppel_ray.resources import DRIVER_CPUS

    trainable = tune.with_resources(trial.trainable(experiment.plain(), folder), {"cpu": DRIVER_CPUS})
    state = folder / TUNE_STATE
    if resume and tune.Tuner.can_restore(str(state)):
        tuner = tune.Tuner.restore(
            str(state), trainable, resume_unfinished=True, resume_errored=True, param_space=steer.space(experiment)
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=steer.space(experiment),
            tune_config=tune.TuneConfig(
                scheduler=steer.scheduler(experiment),
                search_alg=steer.searcher(experiment, concurrent),
                num_samples=experiment.tune.samples,
                trial_name_creator=steer.trial_name,
                trial_dirname_creator=steer.trial_name,
            ),
            run_config=tune.RunConfig(
                name=TUNE_STATE,
                storage_path=str(folder),
                callbacks=[live.Live(folder, experiment.plain(), total, plain), JsonLoggerCallback()],
                failure_config=tune.FailureConfig(max_failures=experiment.tune.max_failures),
                verbose=0,
            ),
        )
    tuner.fit()
    statuses = {trial.status for trial in report.read(folder).trials}
    if statuses <= {"finished", "stopped early"}:
        return "finished"
    return "failed" if "failed" in statuses and not statuses & {"running", "waiting", "interrupted"} else "interrupted"


if __name__ == "__main__":
    command.run(main)
