"""A sweep among faults: `python scripts/chaos.py --kills 20 --minutes 10 --seed 0`.

A cluster of several Ray nodes on this machine, on loopback, with a token; one small sweep on it, run as its user would,
`python -m doppel_ray.tune`; and `kill -9` of whatever keeps it going, at random moments drawn from the seed: a
generator, a train worker, a probe, Ray Data's and Ray Train's own helpers, the trial's process, or a whole node, in
whose place a fresh one comes. The head and the sweep's own process are left alone. The same sweep runs in peace first.

Then it checks, and prints: every epoch's row once and in order; along the checkpoints that survived every index of the
stream trained on, none skipped; and the final loss, to 1e-4 that of the sweep in peace. Exit code 0 only if all holds.
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doppel_ray import checkpoint, command, environment
from doppel_ray.rows import read_rows

REPOSITORY = Path(__file__).parent.parent

KINDS = {
    "generator": "ray::MapWorker(MapBatches(Generator))",
    "train worker": "ray::RayTrainWorker",
    "probe": "ray::_probe",
    "node": "",
    "stream": "ray::SplitCoordinator",
    "controller": "ray::TrainController",
    "trial": "ray::ImplicitFunc",
}
"""What can be killed -> how its process calls itself."""

SWEEP = {
    "run.name": "sweep",
    "synth.duration": "0.5",
    "encoder": "{kind: cnn, width: 8}",
    "head": "{kind: mlp, hidden: 32, size: 16}",
    # At a larger rate the order of sums alone moves the final loss: see tests/integration/test_trial.py.
    "optim": "{kind: sgd, lr: 3.0e-4, reference_batch: null, schedule: cosine}",
    "train.batch_size": "32",
    "train.precision": "fp32",
    "train.cpus_per_worker": "0.5",
    "generators": "[{num_cpus: 0.4}]",
    "probes.tasks": "[{kind: factors, sounds: 128}]",
    "probes.cpus": "0.1",
    "tune.concurrent": "1",
    "tune.scheduler": "fifo",
    "search": "{pairs.delta: {grid: [0.25]}}",
}
UNTIL_IT_IS_THERE = 60.0
"""Seconds that a kill waits for a process of its kind."""
SAME = 1e-4
"""Difference of two final losses, at most."""


# --- the cluster ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_ray(folder: Path) -> Iterator[None]:
    """Let every Ray process that this one starts listen on loopback, with a token and temporary files of its own."""
    token = folder / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ |= {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": environment.ALONE["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"],
        # Without a folder of its own the cluster would leave its address where others look for one to join.
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
        "DOPPEL_RAY_CHAOS": str(folder),
    }
    try:
        yield
    finally:
        for _ in range(2):  # Ray's workers end by themselves a minute after their node; the second time, their children
            for process in processes(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(1)


class Cluster:
    """Ray nodes on this machine, the first of them the head, which offers no CPUs.

    Args:
        nodes: how many beside the head.
    """

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster as Nodes

        head = {"num_cpus": 0, "dashboard_host": "127.0.0.1", "dashboard_port": None, "include_dashboard": True}
        self.nodes = Nodes(initialize_head=True, head_node_args=head)
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        return self.nodes.address

    def add(self) -> None:
        self.nodes.add_node(num_cpus=1, wait=False)

    def replace(self, chosen: random.Random) -> None:
        """Kill every process of a node, and add a fresh one."""
        lost = chosen.choice(sorted(self.nodes.worker_nodes, key=lambda node: node.node_manager_port))
        self.nodes.remove_node(lost, allow_graceful=False)
        self.add()

    def end(self) -> None:
        self.nodes.shutdown()


def title(process: int) -> str:
    """A process's command line."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    return ""


def processes(folder: Path) -> list[int]:
    """Everything that this run has started, however indirectly; a process's environment says so."""
    mark, found = f"DOPPEL_RAY_CHAOS={folder}".encode(), []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


# --- the sweep, in peace and among faults -----------------------------------------------------------------------------


def start(folder: Path, address: str, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """The sweep, as its user starts it; what it prints is in `output.txt`."""
    options = [part for key, value in (settings | {"run.dir": str(folder)}).items() for part in (f"--{key}", value)]
    folder.mkdir(parents=True)
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "doppel_ray.tune", "--plain", *options],
            env=os.environ | {"RAY_ADDRESS": address},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def plan(kinds: list[str], kills: int, minutes: float, chosen: random.Random) -> list[tuple[float, str]]:
    """When, in seconds from the start of training, and what: each kind as often as the others, in any order."""
    moments = sorted(chosen.uniform(0.0, 60.0 * minutes) for _ in range(kills))
    whole, rest = divmod(kills, len(kinds))
    drawn = kinds * whole + chosen.sample(kinds, rest)
    chosen.shuffle(drawn)
    return list(zip(moments, drawn, strict=True))


@dataclass(frozen=True)
class Kill:
    """What was killed."""

    moment: float
    """Seconds since training had begun."""
    kind: str
    rows: int
    """That there were."""


def storm(
    sweep: subprocess.Popen[bytes],
    run: Path,
    cluster: Cluster,
    folder: Path,
    planned: list[tuple[float, str]],
    chosen: random.Random,
) -> list[Kill]:
    """Kill as planned while the sweep runs; what was killed."""
    trains = KINDS["train worker"]
    while sweep.poll() is None and not any(title(process).startswith(trains) for process in processes(folder)):
        time.sleep(0.5)
    began, done = time.monotonic(), []
    for moment, kind in planned:
        while sweep.poll() is None and time.monotonic() - began < moment:
            time.sleep(0.2)
        end = time.monotonic() + UNTIL_IT_IS_THERE
        while sweep.poll() is None and time.monotonic() < end:
            if kind == "node":
                cluster.replace(chosen)
            elif living := [process for process in processes(folder) if title(process).startswith(KINDS[kind])]:
                os.kill(chosen.choice(living), signal.SIGKILL)
            else:
                time.sleep(0.1)
                continue
            rows = sum(len(read_rows(trial)) for trial in run.glob("trials/0*"))
            done.append(Kill(time.monotonic() - began, kind, rows))
            print(f"{done[-1].moment:6.1f} s, {rows} rows: killed a {kind}", flush=True)
            break
    return done


def wait(sweep: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None if it does not end in time."""
    try:
        return sweep.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


# --- the verdict ------------------------------------------------------------------------------------------------------


def uncovered(trial: Path, total: int) -> list[tuple[int, int]]:
    """Stretches of the indices [0, total) that none of a trial's checkpoints has come by.

    Each says from which index on its means are, all of which it has taken: the training loop refuses a batch that is
    not the next one.
    """
    known = [checkpoint.about(file.parent)["metrics"] for file in trial.glob("checkpoints*/*/checkpoint.json")]
    gaps, reached = [], 0
    for first, last in sorted((int(metrics["pairs_from"]), int(metrics["pairs"])) for metrics in known):
        if first > reached:
            gaps.append((reached, first))
        reached = max(reached, last)
    return gaps + ([(reached, total)] if reached < total else [])


def verdict(code: int | None, run: Path, peaceful: Path, epochs: int, pairs: int) -> list[tuple[str, bool, str]]:
    """What was to hold, whether it does, and what was found."""
    checks = [("the sweep ends by itself with exit code 0", code == 0, f"{'it hangs' if code is None else code}")]
    trials = sorted(peaceful.glob("trials/0*"))
    for trial in trials:
        rows, name = read_rows(run / "trials" / trial.name), trial.name
        epochs_told = [row["epoch"] for row in rows]
        once = epochs_told == list(range(1, epochs + 1))
        checks.append((f"{name}: each epoch's row once, in order", once, f"{len(rows)} of {epochs}"))
        gaps = uncovered(run / "trials" / name, epochs * pairs)
        found = ", ".join(f"{first} to {last - 1} skipped" for first, last in gaps) or f"all of {epochs * pairs:,}"
        checks.append((f"{name}: every index trained on along the checkpoints", not gaps, found))
        ours, theirs = (of[-1]["loss"] if of else float("nan") for of in (rows, read_rows(trial)))
        checks.append((f"{name}: final loss as in peace", abs(ours - theirs) <= SAME, f"{ours:.6f}, {theirs:.6f}"))
        failed = [row["epoch"] for row in rows if row.get("probe/failed")]
        checks.append((f"{name}: every epoch probed", not failed, f"without scores: {failed or 'none'}"))
    return checks


def told(kills: list[Kill], checks: list[tuple[str, bool, str]]) -> None:
    """Print the tables."""
    counts = Counter(kill.kind for kill in kills)
    print("\n| killed | times |\n|---|---|")
    for kind in KINDS:
        print(f"| {kind} | {counts[kind]} |")
    print("\n| what was to hold | holds | found |\n|---|---|---|")
    for what, holds, found in checks:
        print(f"| {what} | {'yes' if holds else 'NO'} | {found} |")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0, help="within which the kills fall (10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=4, help="beside the head (4)")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="what to kill")
    parser.add_argument("--epochs", type=int, default=60, help="of the sweep's trial: enough to outlast the kills (60)")
    parser.add_argument("--pairs", type=int, default=4096, help="of an epoch (4096)")
    parser.add_argument("--patience", type=float, default=60.0, help="minutes for each sweep (60)")
    parser.add_argument(
        "--undisturbed", type=Path, metavar="RUN_DIR", help="the same sweep in peace, of an earlier run"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder to leave the runs in")
    options = parser.parse_args()
    command.stop_on_sigterm()  # so that it ends what it has started
    settings = SWEEP | {"train.epochs": f"{options.epochs}", "train.pairs_per_epoch": f"{options.pairs}"}
    settings |= {"probes.every": f"{max(1, options.epochs // 20)}"}
    # Each kill may cost a trial one of both; the plan of the kills is what the sweep must outlast.
    settings |= {"train.max_failures": f"{2 * options.kills}", "tune.max_failures": f"{2 * options.kills}"}
    chosen = random.Random(options.seed)
    planned = plan(options.only, options.kills, options.minutes, chosen)
    scratch = Path(tempfile.mkdtemp(prefix="chaos"))  # short: Ray's sockets lie below it
    runs = options.keep or scratch / "runs"
    try:
        with own_ray(scratch):
            cluster = Cluster(options.nodes)
            peaceful = options.undisturbed
            if peaceful is None:
                peaceful = runs / "peaceful" / settings["run.name"]
                if wait(start(runs / "peaceful", cluster.address, settings), 60 * options.patience) != 0:
                    print((runs / "peaceful" / "output.txt").read_text(), file=sys.stderr)
                    return 1
            run = runs / "chaos" / settings["run.name"]
            sweep = start(runs / "chaos", cluster.address, settings)
            kills = storm(sweep, run, cluster, scratch, planned, chosen)
            code = wait(sweep, 60 * options.patience)
            cluster.end()
        whole = f"{len(kills)} of {len(planned)}; if the sweep had ended before: more --epochs"
        checks = [("all kills were done", len(kills) == len(planned), whole)]
        checks += verdict(code, run, peaceful, options.epochs, options.pairs)
        told(kills, checks)
        (runs / "chaos" / "kills.json").write_text(json.dumps([vars(kill) for kill in kills], indent=1))
        return 0 if all(holds for _, holds, _ in checks) else 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
