"""A sweep among faults: `python scripts/chaos.py --kills 20 --minutes 10 --seed 0`.

A cluster of several Ray nodes on this machine, on loopback, with a token; one small sweep on it, run as its user would,
`python -m doppel_ray.tune`; and `kill -9` of whatever keeps it going, at random moments drawn from the seed: a
generator, a train worker, a probe, Ray Data's and Ray Train's own helpers, the trial's process, or a whole node, with
or without notice, in whose place a fresh one comes. The head and the sweep's own process are left alone. The same
sweep runs in peace first.

Then it checks, and prints: every epoch's row once and in order; along the checkpoints that survived every index of the
stream trained on, none skipped; and the final loss, to 1e-4 that of the sweep in peace. Exit code 0 only if all holds.
"""

import argparse
import contextlib
import functools
import json
import math
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from doppel_ray.cluster import ray_env
from doppel_ray.runs.metrics_log import STEPS, Row, read_rows

REPOSITORY = Path(__file__).parent.parent

NODE = "a whole node"
NOTICE = 30
"""Seconds before its end in which a drained node, such as a spot instance, is known to go."""
KINDS = {
    "generator": "ray::MapWorker(MapBatches(Generator))",
    "train worker": "ray::RayTrainWorker",
    "probe": "ray::_probe",
    "node": NODE,
    "drained node": NODE,
    "stream": "ray::SplitCoordinator",
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
    "train.log_every": "1",  # every step is written down
    "train.cpus_per_worker": "0.5",
    "generators": "[{num_cpus: 0.4}]",
    "data.buffer_mb": "16",  # so that generators do not make everything at once, and end
    "probes.tasks": "[{kind: factors, sounds: 128}]",
    "probes.cpus": "0.1",
    "tune.concurrent": "1",
    "tune.scheduler": "fifo",
    "search": "{pairs.delta: {grid: [0.25]}}",
}
UNTIL_IT_IS_THERE = 300.0
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
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": ray_env.ALONE["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"],
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

    def replace(self, chosen: random.Random, notice: int) -> None:
        """Kill every process of a node, and add a fresh one.

        Args:
            chosen: decides which node.
            notice: seconds before, at which Ray is told; 0: it is not.
        """
        lost = chosen.choice(sorted(self.nodes.worker_nodes, key=lambda node: node.node_manager_port))
        if notice:
            said = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the node is taken away"]
            until = ["--address", self.address, "--deadline-remaining-seconds", f"{notice}"]
            ray = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
            subprocess.run([*ray, "--node-id", lost.node_id, *said, *until], check=True)
            time.sleep(notice)
        self.nodes.remove_node(lost, allow_graceful=False)
        self.add()

    def end(self) -> None:
        self.nodes.shutdown()


def title(process: int) -> str:
    """Return a process's command line."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    return ""


def processes(folder: Path) -> list[int]:
    """Return all processes that this run has started, directly or not; their environment marks them."""
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


def plan(kinds: list[str], kills: int, length: float, chosen: random.Random) -> list[tuple[float, str]]:
    """When, and what: random moments from 0 to `length`; each kind as often as the others, in any order."""
    moments = sorted(chosen.uniform(0.0, length) for _ in range(kills))
    whole, rest = divmod(kills, len(kinds))
    drawn = kinds * whole + chosen.sample(kinds, rest)
    chosen.shuffle(drawn)
    return list(zip(moments, drawn, strict=True))


@dataclass(frozen=True)
class Kill:
    """What was killed."""

    seconds: float
    """Since training had begun."""
    kind: str
    epochs: int
    """With a checkpoint by then."""


class Storm:
    """What happens to a sweep.

    Args:
        sweep: it runs.
        run: its folder.
        cluster: where.
        folder: this script's own, which marks the processes that may be killed.
        chosen: decides which process of several.
    """

    def __init__(
        self, sweep: subprocess.Popen[bytes], run: Path, cluster: Cluster, folder: Path, chosen: random.Random
    ) -> None:
        self.sweep, self.run, self.cluster, self.folder, self.chosen = sweep, run, cluster, folder, chosen
        self.until(lambda: self.living("train worker"))
        self.began = time.monotonic()
        self.done: list[Kill] = []

    def rage(self, planned: list[tuple[float, str]], by_seconds: bool) -> None:
        """Kill as planned, by seconds or by epochs, until the sweep has ended."""
        now = self.seconds if by_seconds else self.epochs
        for moment, kind in planned:
            self.until(functools.partial(lambda due: now() >= due, moment))
            if self.until(functools.partial(self.living, kind), UNTIL_IT_IS_THERE):
                self.kill(kind)

    def kill(self, kind: str) -> None:
        self.done.append(Kill(self.seconds(), kind, self.epochs()))
        print(f"{self.seconds():6.1f} s, {self.epochs()} epochs: kill -9 of a {kind}", flush=True)
        if KINDS[kind] == NODE:
            self.cluster.replace(self.chosen, NOTICE if kind == "drained node" else 0)
            return
        with contextlib.suppress(ProcessLookupError, IndexError):  # where it has ended by itself just now
            os.kill(self.chosen.choice(self.living(kind)), signal.SIGKILL)

    def living(self, kind: str) -> list[int]:
        """Processes of a kind; for a node the sweep's own, which every node is there for."""
        if KINDS[kind] == NODE:
            return [self.sweep.pid]
        return [process for process in processes(self.folder) if title(process).startswith(KINDS[kind])]

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def epochs(self) -> int:
        """That have a checkpoint."""
        return len(list(self.run.glob("trials/0*/checkpoints*/epoch_*/checkpoint.json")))

    def until(self, condition: Callable[[], object], seconds: float = math.inf) -> bool:
        """Wait until a condition holds, the sweep ends or `seconds` pass; return whether it holds."""
        end = time.monotonic() + seconds
        while self.sweep.poll() is None and time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.2)
        return False


def wait(sweep: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit code; None if the sweep does not end in time."""
    try:
        return sweep.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


# --- the verdict ------------------------------------------------------------------------------------------------------


def stretch(row: Row) -> tuple[int, int]:
    """Return the range of indices that a row's means cover."""
    return row["pairs_from"], row["pairs"]


def untrained(trial: Path, total: int) -> list[int]:
    """Return the steps, of 1 to `total`, that are not part of a trial's last weights.

    Each step has its own batch of indices: the training loop refuses any other. Steps after the checkpoint that the
    next start resumed from do not count.
    """
    done: set[int] = set()
    for line in (trial / STEPS).read_text().splitlines():
        with contextlib.suppress(ValueError):  # cut short by a kill
            point = json.loads(line)
            if "goes_on_from" in point:
                done = {step for step in done if step <= point["goes_on_from"]}
            else:
                done.add(point["step"])
    return sorted(set(range(1, total + 1)) - done)


def verdict(code: int | None, run: Path, peaceful: Path, epochs: int, pairs: int) -> list[tuple[str, bool, str]]:
    """Return (requirement, whether it holds, finding) of each check."""
    checks = [("the sweep ends by itself with exit code 0", code == 0, f"{'it hangs' if code is None else code}")]
    trials = sorted(peaceful.glob("trials/0*"))
    for trial in trials:
        name, rows, others = trial.name, read_rows(run / "trials" / trial.name), read_rows(trial)
        once = [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        unscored = sum(bool(row.get("probe/failed")) for row in rows)
        counted = f"{len(rows)} of {epochs}, {unscored} whose probe failed"
        checks.append((f"{name}: each epoch's row once, in order", once, counted))
        batch = int(SWEEP["train.batch_size"])
        skipped = untrained(run / "trials" / name, epochs * (pairs // batch))
        found = f"steps {skipped} are missing" if skipped else f"all of {epochs * (pairs // batch) * batch:,}"
        checks.append((f"{name}: every index trained on along the checkpoints", not skipped, found))
        # A row's means are of a part of its epoch where training went on from a checkpoint within it.
        same = [(ours, other) for ours, other in zip(rows, others, strict=False) if stretch(ours) == stretch(other)]
        losses = [row["loss"] for row in same[-1]] if same else [math.nan, math.nan]
        compared = f"{losses[0]:.6f} and {losses[1]:.6f}, epoch {same[-1][0]['epoch'] if same else 0}"
        checks.append((f"{name}: final loss as in peace", abs(losses[0] - losses[1]) <= SAME, compared))
    return checks


def report(kills: list[Kill], checks: list[tuple[str, bool, str]]) -> None:
    """Print the tables."""
    counts = Counter(kill.kind for kill in kills)
    print("\n| killed | times |\n|---|---|")
    for kind in KINDS:
        print(f"| {kind} | {counts[kind]} |")
    print("\n| requirement | holds | found |\n|---|---|---|")
    for what, holds, found in checks:
        print(f"| {what} | {'yes' if holds else 'NO'} | {found} |")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, help="within which the kills fall; without, on half its epochs")
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
    settings = SWEEP | {"train.epochs": f"{options.epochs}", "train.pairs_per_epoch": f"{options.pairs}"}
    settings |= {"probes.every": f"{max(1, options.epochs // 20)}"}
    # Each kill may cost a trial one of both; the plan of the kills is what the sweep must outlast.
    settings |= {"train.max_failures": f"{2 * options.kills}", "tune.max_failures": f"{2 * options.kills}"}
    chosen = random.Random(options.seed)
    length = 60 * options.minutes if options.minutes else options.epochs / 2
    planned = plan(options.only, options.kills, length, chosen)
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
            storm = Storm(sweep, run, cluster, scratch, chosen)
            storm.rage(planned, by_seconds=options.minutes is not None)
            kills = storm.done
            code = wait(sweep, 60 * options.patience)
            cluster.end()
        whole = f"{len(kills)} of {len(planned)}; if the sweep had ended before: more --epochs"
        checks = [("all kills were done", len(kills) == len(planned), whole)]
        checks += verdict(code, run, peaceful, options.epochs, options.pairs)
        report(kills, checks)
        (runs / "chaos" / "kills.json").write_text(json.dumps([vars(kill) for kill in kills], indent=1))
        return 0 if all(holds for _, holds, _ in checks) else 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
