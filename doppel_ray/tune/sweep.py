"""Sweeps: `python -m doppel_ray.tune`, the main job."""

import contextlib
import errno
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

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
from doppel_ray.tune import display, schedulers
from doppel_ray.tune.budget import Budget
from doppel_ray.tune.search_algorithm import TrialQueue

if TYPE_CHECKING:
    from doppel_ray.train.elastic import WorkerScaling

log = logging.getLogger(__name__)


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
    parser = cli.Parser(module, description)
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="continue an interrupted run with its own settings; --run.dir: where to put a copy of s3://BUCKET/PREFIX/NAME",
    )
    parser.add_argument(
        "--extend",
        metavar="RUN_DIR",
        help="continue a run with more trials (larger --tune.samples, --tune.repeats or --search) or a larger budget",
    )
    parser.add_argument("--plain", action="store_true", help="print lines instead of a live table")
    parser.add_argument(
        "--scale",
        choices=get_args(Scale),
        default="full",
        help="small: apply the file's `small` section, for a test that two cores finish in minutes (default: full)",
    )
    parser.add_experiment(Experiment, default)
    args = parser.parse(argv)
    console = cli.console(args.plain, sys.__stdout__)
    if args.resume is None and args.extend is None:
        experiment = read_experiment(args.config, args.overrides, args.scale).with_absolute_paths()
        if module == "train":
            experiment = one_trial(experiment)
        warnings = preflight.check(experiment)
        small = scale_changes(args.config) if args.scale == "small" else {}
        folder = run_folder.create(experiment, args.config, small, warnings)
        with lock_folder(folder):
            return mirrored(experiment, folder, console, args.plain)
    given: str = args.resume or args.extend
    runs = Path(args.overrides.pop("run.dir", RunConfig().dir)) if is_s3(given) else None
    if args.config != default or args.scale != "full" or (args.overrides and args.extend is None):
        raise ConfigError(
            "--resume goes on with the run as it was configured; leave out --config and every other setting"
            if args.extend is None
            else "--extend adds to the run as it was configured; leave out --config and --scale"
        )
    if args.resume is not None and args.extend is not None:
        raise ConfigError("--resume and --extend: choose one; --extend goes on with what is unfinished too")
    folder = Path(given) if runs is None else fetched(S3Path.parse(given), runs, console)
    experiment = (
        run_folder.recorded_experiment(folder)
        if args.extend is None
        else run_folder.extended_experiment(folder, args.overrides)
    )
    warnings = preflight.check(experiment, folder)
    with lock_folder(folder):
        run_folder.update(folder, warnings=warnings)
        if args.extend is not None:
            run_folder.record_extension(folder, experiment)
        return mirrored(experiment, folder, console, args.plain)


def fetched(place: S3Path, runs: Path, console: Console) -> Path:
    """A run from object storage, in a folder of its own below `runs`; returns that."""
    folder = fetch(place, runs, partial(console.print, markup=False))
    run_folder.relocate(folder, place)
    return folder


def one_trial(experiment: Experiment) -> Experiment:
    """The experiment without its search."""
    alone = {"scheduler": "fifo", "searcher": "random", "samples": 1, "repeats": 1}
    return experiment.model_copy(update={"search": {}, "tune": experiment.tune.model_copy(update=alone)})


def mirrored(experiment: Experiment, folder: Path, console: Console, plain: bool) -> int:
    """Run a sweep as `sweep` does, with a copy of its folder in object storage if there is to be one."""
    place = run_folder.storage_path(experiment, folder)
    if place is None:
        return sweep(experiment, folder, console, plain)
    copy = mirror.Mirror(folder, place, partial(console.print, markup=False))
    try:
        code = sweep(experiment, folder, console, plain)
    finally:
        whole = copy.finish()
    return code if whole else code or 1


def sweep(experiment: Experiment, folder: Path, console: Console, plain: bool) -> int:
    """Run a sweep into its folder, or go on with what is left of it.

    Returns:
        The exit code.

    Raises:
        ConfigError: its budget of pairs is used up, or it does not fit the cluster.
    """
    from doppel_ray.cluster.connect import connect, disconnect, redirect_ray_output
    from doppel_ray.cluster.nodes import check_visible, living_nodes
    from doppel_ray.cluster.plan import plan_trial
    from doppel_ray.train.elastic import WorkerScaling

    began, name = time.monotonic(), folder.resolve().name
    past = reader.read(folder).trials
    budget = Budget(experiment, name, past)
    if (spent := budget.spent()) is not None:
        raise ConfigError(f"{folder} has used up its {spent}; give it more: --extend {folder} --tune.pairs N")
    go_on = f"go on with: python -m doppel_ray.tune --resume {folder}"
    result = "interrupted"
    try:
        with redirect_ray_output(folder / "ray.log"), contextlib.ExitStack() as stack:
            stack.callback(disconnect)
            if ray_env.address() is None:
                threading.Thread(target=_compile_ahead, args=(experiment, console), daemon=True).start()
            nodes, where = connect()
            cli.stop_on_sigterm()
            check_visible(folder.resolve() / reader.RUN)
            plan = plan_trial(experiment, nodes)
            preflight.check_tune(experiment, plan.concurrent)
            run_folder.update(folder, plan=plan.lines(), nodes=[str(node) for node in nodes])
            scheduler = schedulers.scheduler(experiment)
            agenda = schedulers.agenda(experiment, name, past, plan.concurrent, scheduler, budget)
            for line in (f"{told(agenda.total, past)} into {folder}", where, *plan.lines()):
                console.print(line)
            room = WorkerScaling(plan.concurrent, grows=len(nodes) > len(living_nodes()))
            _fit(experiment, folder.resolve(), agenda, scheduler, budget, plain, room)
            result = _result(folder, agenda.total, budget)
    except KeyboardInterrupt:
        pass  # told below, with what there is
    except Exception as error:
        if not is_full(folder):
            raise
        console.print(f"the disk of {folder} is full; nothing that was checkpointed is lost. Make room, then {go_on}")
        log.debug("what it led to", exc_info=error)
        return 1
    minutes = (time.monotonic() - began) / 60
    writer.publish(folder, console)
    tensorboard.write_leaderboard(folder)
    if result == "interrupted":
        console.print(f"interrupted after {minutes:.1f} minutes; nothing that was checkpointed is lost. {go_on}")
        return cli.INTERRUPTED
    if result == "failed":
        console.print(f"some trials failed: see trial.log in their folders under {folder / 'trials'}. {go_on}")
        return 1
    if result == "spent":
        console.print(f"the budget of {budget.spent()} is used up, and not every trial has ended. {go_on}")
        return 0
    console.print(f"done in {minutes:.1f} minutes; results are in {folder}")
    return 0


def is_full(folder: Path) -> bool:
    """Whether a file of a few kilobytes cannot be written there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
            file.flush()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def told(total: int, past: Sequence[reader.Trial]) -> str:
    """`3 trials`, `8 trials (5 have ended)`."""
    ended = sum(trial.status in reader.ENDED for trial in past)
    return f"{total} {'trial' if total == 1 else 'trials'}" + (f" ({ended} have ended)" if ended else "")


def _result(folder: Path, total: int, budget: Budget) -> str:
    """How a sweep that nobody interrupted has ended: "finished", "failed", "spent" or "interrupted"."""
    statuses = [trial.status for trial in reader.read(folder).trials]
    if len(statuses) == total and set(statuses) <= set(reader.ENDED):
        return "finished"
    if "failed" in statuses and not {"running", "waiting", "interrupted"} & set(statuses):
        return "failed"
    return "spent" if budget.spent() is not None else "interrupted"


def _compile_ahead(experiment: Experiment, console: Console) -> None:
    """Compile the synthesizer while Ray starts, so that the generators find it ready; once on a machine."""
    from doppel_ray.core.files import cache_folder
    from doppel_ray.synth import compiled

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells of a CUDA that nobody asked for
    if experiment.source.share == 1.0:
        return
    synth = experiment.synth.build()
    synth.pairs(0, range(1), 0.0)
    if compiled.spent:
        console.print(f"compiled the synthesizer in {compiled.spent:.0f} s; it is kept in {cache_folder()}")


def _fit(
    experiment: Experiment,
    folder: Path,
    agenda: TrialQueue,
    scheduler: Any,
    budget: Budget,
    plain: bool,
    room: "WorkerScaling",
) -> None:
    """Ray Tune itself. What it keeps of its own is for this life of the sweep alone, and removed with the next."""
    from ray import tune

    from doppel_ray.cluster.plan import DRIVER_CPUS
    from doppel_ray.tune import trial

    callbacks: list[tune.Callback] = [display.ProgressCallback(folder, experiment.plain(), agenda.total, budget, plain)]
    if experiment.tune.log_to:
        from doppel_ray.tune import trackers

        callbacks += trackers.callbacks(experiment, folder)
    shutil.rmtree(folder / TUNE_STATE, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(trial.trainable(experiment.plain(), folder, room), {"cpu": DRIVER_CPUS}),
        tune_config=tune.TuneConfig(scheduler=scheduler, search_alg=agenda),
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
