"""Sweeps: the command lines `python -m doppel_ray.tune`, the main job, and `python -m doppel_ray.train`."""

import argparse
import contextlib
import errno
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from doppel_ray.cluster import preflight, ray_env
from doppel_ray.config.experiment import Experiment, Scale, read_experiment, scale_changes
from doppel_ray.config.run import RunConfig
from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path, is_s3
from doppel_ray.report import tensorboard, writer
from doppel_ray.runs import folder as run_folder
from doppel_ray.runs import mirror, reader
from doppel_ray.runs.fetch import fetch
from doppel_ray.runs.folder import TUNE_STATE
from doppel_ray.runs.lock import lock_folder
from doppel_ray.train.elastic import WorkerScaling
from doppel_ray.tune import display, schedulers, search_algorithm
from doppel_ray.tune.budget import Budget
from doppel_ray.tune.search_algorithm import TrialQueue

log = logging.getLogger(__name__)

HEAD_SHARE = 0.0001
"""Part of the head's resource of its own that a trial's process reserves: Ray's smallest."""


class Outcome(Enum):
    """How a sweep ended."""

    FINISHED = auto()
    FAILED = auto()
    """Some trials failed, and no other is left."""
    OUT_OF_BUDGET = auto()
    INTERRUPTED = auto()

    @property
    def exit_code(self) -> int:
        return {Outcome.FAILED: 1, Outcome.INTERRUPTED: cli.INTERRUPTED}.get(self, 0)


# --- the command line -------------------------------------------------------------------------------------------------


def run_command(module: str, description: str, default: Path | None, argv: Sequence[str] | None) -> int:
    """Run the command line of `tune`, or of `train`, which runs a sweep of one trial.

    Args:
        module: "tune" or "train".
        description: first line of its help.
        default: configuration file without --config.
        argv: arguments, or None for the process's own.

    Returns:
        The exit code.
    """
    args = _parser(module, description, default).parse(argv)
    console = cli.console(args.plain, sys.__stdout__)
    if args.resume_if_exists and (started := _to_resume(args, is_sweep=module == "tune")) is not None:
        args = argparse.Namespace(
            **vars(args) | {"resume": str(started), "config": default, "scale": "full", "overrides": {}}
        )
    if args.resume is None and args.extend is None:
        return _start(args, console, is_sweep=module == "tune")
    if args.resume is not None and args.extend is not None:
        raise ConfigError("--resume and --extend: choose one; --extend resumes unfinished trials too")
    return _continue(args, console, default)


def _parser(module: str, description: str, default: Path | None) -> cli.Parser:
    parser = cli.Parser(module, description)
    parser.add_argument(
        "--resume",
        type=cli.folder_or_url,
        metavar="RUN_DIR",
        help="resume an interrupted run; takes no other setting, but with s3://BUCKET/PREFIX/NAME --run.dir",
    )
    parser.add_argument(
        "--resume-if-exists",
        action="store_true",
        help="start --run.name, or resume it if it has been started: one command for cron, Slurm's requeue, Kubernetes",
    )
    parser.add_argument(
        "--extend",
        type=cli.folder_or_url,
        metavar="RUN_DIR",
        help="continue a run with more trials (larger --tune.samples, --tune.repeats or --search) or a larger budget",
    )
    parser.add_argument("--plain", action="store_true", help="print lines instead of a live table")
    parser.add_argument(
        "--scale",
        choices=get_args(Scale),
        default="full",
        help="small: shrunk by the file's `small` section to what two cores finish in minutes",
    )
    parser.add_experiment(Experiment, default)
    return parser


def _start(args: argparse.Namespace, console: Console, is_sweep: bool) -> int:
    """Run a new experiment in a new folder."""
    experiment = read_experiment(args.config, args.overrides, args.scale).with_absolute_paths()
    if not is_sweep:
        experiment = one_trial(experiment)
    warnings = preflight.check(experiment)
    small = scale_changes(args.config) if args.scale == "small" else {}
    folder = run_folder.create(experiment, args.config, small, warnings)
    with lock_folder(folder):
        return run_mirrored(experiment, folder, console, args.plain)


def _to_resume(args: argparse.Namespace, is_sweep: bool) -> Path | None:
    """Return the folder of the run that --resume-if-exists names; None if the run has not been started.

    Raises:
        ConfigError: the run has no name, or was started with other settings.
    """
    if args.resume is not None or args.extend is not None:
        raise ConfigError("--resume-if-exists takes the run from --run.name; leave out --resume and --extend")
    experiment = read_experiment(args.config, args.overrides, args.scale).with_absolute_paths()
    if experiment.run.name is None:
        raise ConfigError("--resume-if-exists needs the run's name: --run.name NAME")
    folder = experiment.run.dir / experiment.run.name
    if not (folder / reader.RUN).exists():
        with contextlib.suppress(OSError):
            folder.rmdir()  # empty: the run was killed as it began
        return None
    run_folder.check_same(folder, experiment if is_sweep else one_trial(experiment))
    return folder


def _continue(args: argparse.Namespace, console: Console, default: Path | None) -> int:
    """Resume a run (--resume), or add trials to it (--extend)."""
    extends = args.extend is not None
    given: str = args.extend if extends else args.resume
    runs = RunConfig(dir=args.overrides.pop("run.dir", RunConfig().dir)).dir if is_s3(given) else None
    if args.config != default or args.scale != "full" or (args.overrides and not extends):
        raise ConfigError(
            "--extend adds to the run as it was configured; leave out --config and --scale"
            if extends
            else "--resume continues the run as it was configured; leave out --config and every other setting"
        )
    folder = Path(given) if runs is None else fetch_run(S3Path.parse(given), runs, console)
    experiment = (
        run_folder.extended_experiment(folder, args.overrides) if extends else run_folder.recorded_experiment(folder)
    )
    warnings = preflight.check(experiment, folder)
    with lock_folder(folder):
        run_folder.update(folder, warnings=warnings)
        if extends:
            run_folder.record_extension(folder, experiment)
        return run_mirrored(experiment, folder, console, args.plain)


def fetch_run(place: S3Path, runs: Path, console: Console) -> Path:
    """Copy a run from object storage into a folder below `runs`, and return that folder."""
    folder = fetch(place, runs, partial(console.print, markup=False))
    run_folder.relocate(folder, place)
    return folder


def one_trial(experiment: Experiment) -> Experiment:
    """Return the experiment without its search."""
    alone = {"scheduler": "fifo", "searcher": "random", "samples": 1, "repeats": 1}
    return experiment.model_copy(update={"search": {}, "tune": experiment.tune.model_copy(update=alone)})


# --- the sweep --------------------------------------------------------------------------------------------------------


def run_mirrored(experiment: Experiment, folder: Path, console: Console, plain: bool) -> int:
    """Run a sweep, with a copy of its folder in object storage if `run.storage` asks for one."""
    place = run_folder.storage_path(experiment, folder)
    if place is None:
        return run_sweep(experiment, folder, console, plain)
    copy = mirror.Mirror(folder, place, partial(console.print, markup=False))
    try:
        code = run_sweep(experiment, folder, console, plain)
    finally:
        complete = copy.finish()
    return code if complete else code or 1


def run_sweep(experiment: Experiment, folder: Path, console: Console, plain: bool) -> int:
    """Run the trials of a sweep that have not ended, and write its report.

    Returns:
        The exit code.

    Raises:
        ConfigError: its budget of pairs is used up, or it does not fit the cluster.
    """
    began = time.monotonic()
    past = reader.read(folder).trials
    budget = Budget(experiment, run_folder.identity(folder), past)
    shown = cli.quoted(folder)
    if (spent := budget.spent()) is not None:
        raise ConfigError(f"{shown} has used up its {spent}; allow more: --extend {shown} --tune.pairs N")
    to_resume = f"resume with: python -m doppel_ray.tune --resume {shown}"
    outcome = Outcome.INTERRUPTED
    try:
        outcome = _run_on_cluster(experiment, folder, past, budget, console, plain)
    except KeyboardInterrupt:
        pass  # reported below, with the results so far
    except Exception as error:
        if not is_full(folder):
            raise
        console.print(
            f"the disk of {cli.quoted(folder)} is full; every checkpoint so far is kept. Make room, then {to_resume}"
        )
        log.debug("the error that a full disk led to", exc_info=error)
        return 1
    minutes = (time.monotonic() - began) / 60
    writer.publish(folder, console)
    tensorboard.write_leaderboard(folder)
    trials = cli.quoted(folder / "trials")
    messages = {
        Outcome.FINISHED: f"done in {minutes:.1f} minutes; results are in {shown}",
        Outcome.FAILED: f"some trials failed: see trial.log in their folders under {trials}. {to_resume}",
        Outcome.OUT_OF_BUDGET: f"the budget of {budget.spent()} is used up before all trials have ended. {to_resume}",
        Outcome.INTERRUPTED: f"interrupted after {minutes:.1f} minutes; every checkpoint so far is kept. {to_resume}",
    }
    console.print(messages[outcome])
    return outcome.exit_code


def _run_on_cluster(
    experiment: Experiment,
    folder: Path,
    past: Sequence[reader.Trial],
    budget: Budget,
    console: Console,
    plain: bool,
) -> Outcome:
    """Connect to Ray, plan the trials, and run them."""
    from doppel_ray.cluster.connect import connect, disconnect, redirect_ray_output
    from doppel_ray.cluster.nodes import check_visible, living_nodes
    from doppel_ray.cluster.plan import plan_trial

    with redirect_ray_output(folder / "ray.log"), contextlib.ExitStack() as stack:
        stack.callback(disconnect)
        if ray_env.address() is None:
            threading.Thread(target=_compile_ahead, args=(experiment, console), daemon=True).start()
        nodes, where = connect(experiment)
        cli.stop_on_sigterm()
        check_visible(folder.resolve() / reader.RUN)
        plan = plan_trial(experiment, nodes)
        preflight.check_tune(experiment, plan.concurrent)
        run_folder.update(folder, plan=plan.lines(), nodes=[str(node) for node in nodes])
        scheduler = schedulers.build_scheduler(experiment)
        name = run_folder.identity(folder)
        queue = search_algorithm.trial_queue(experiment, name, past, plan.concurrent, scheduler, budget)
        for line in (f"{trial_counts(queue.total, past)} into {folder}", where, *plan.lines()):
            console.print(line)
        scaling = WorkerScaling(plan.concurrent, grows=len(nodes) > len(living_nodes()))
        _fit(experiment, folder.resolve(), queue, scheduler, budget, plain, scaling)
        return outcome_of(folder, queue.total, budget)


def _fit(
    experiment: Experiment,
    folder: Path,
    queue: TrialQueue,
    scheduler: Any,
    budget: Budget,
    plain: bool,
    scaling: WorkerScaling,
) -> None:
    """Run Ray Tune. Its own state is of no use to a resumed sweep, and is removed at each start."""
    from ray import tune

    from doppel_ray.cluster.nodes import HEAD
    from doppel_ray.tune import trial

    callbacks: list[tune.Callback] = [display.ProgressCallback(folder, experiment.plain(), queue.total, budget, plain)]
    if experiment.tune.log_to:
        from doppel_ray.tune import trackers

        callbacks += trackers.callbacks(experiment, folder)
    shutil.rmtree(folder / TUNE_STATE, ignore_errors=True)
    # Ray Train's controller and Ray Data's coordinators run where the trial's process does. On the head, which lives as
    # long as the cluster, no spot node takes them along. They only wait, and the head may have no CPUs to reserve.
    on_head = tune.PlacementGroupFactory([{HEAD: HEAD_SHARE}])
    tuner = tune.Tuner(
        tune.with_resources(trial.trainable(experiment.plain(), folder, scaling), on_head),
        tune_config=tune.TuneConfig(scheduler=scheduler, search_alg=queue),
        run_config=tune.RunConfig(
            name=TUNE_STATE,
            storage_path=str(folder),
            stop=budget,
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=experiment.tune.max_failures),
            verbose=0,
        ),
    )
    tuner.fit()


def outcome_of(folder: Path, total: int, budget: Budget) -> Outcome:
    """Return how a sweep ended that ran to its end, from the statuses of its trials.

    Args:
        folder: the sweep's.
        total: its trials, with those that have not started.
        budget: of the sweep.
    """
    statuses = [trial.status for trial in reader.read(folder).trials]
    if len(statuses) == total and set(statuses) <= set(reader.ENDED):
        return Outcome.FINISHED
    if "failed" in statuses and not {"running", "waiting", "interrupted"} & set(statuses):
        return Outcome.FAILED
    return Outcome.OUT_OF_BUDGET if budget.spent() is not None else Outcome.INTERRUPTED


def is_full(folder: Path) -> bool:
    """Return whether a small file cannot be written there because the disk or the quota is full."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
            file.flush()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def trial_counts(total: int, past: Sequence[reader.Trial]) -> str:
    """Return `3 trials`, or `8 trials (5 have ended)`."""
    ended = sum(trial.status in reader.ENDED for trial in past)
    return f"{total} {'trial' if total == 1 else 'trials'}" + (f" ({ended} have ended)" if ended else "")


def _compile_ahead(experiment: Experiment, console: Console) -> None:
    """Compile the synthesizer while Ray starts, so that the generators find it ready; once on a machine."""
    from doppel_ray.core.files import cache_folder
    from doppel_ray.synth import compiled

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a missing CUDA
    if experiment.source.share == 1.0:
        return
    synth = experiment.synth.build()
    synth.pairs(0, range(1), 0.0)
    if compiled.spent:
        console.print(f"compiled the synthesizer in {compiled.spent:.0f} s; it is kept in {cache_folder()}")
