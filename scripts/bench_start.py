"""What starting a trial costs: `python scripts/bench_start.py --trials 3` runs tiny trials one at a time.

For each trial it prints the seconds from "started" to the first step, and from there to its end, and for each process
that started after the trial before it: its role and the CPU seconds that it used. The medians are of the second and
later trials. CPU seconds are the better measure on a busy machine; a process's last fraction of a second is missed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench_many import TINY
from bench_memory import cpu_seconds, tree

SETTINGS = TINY | {"tune.concurrent": "1", "train.log_every": "1"}
POLL = 0.2
"""Seconds between two looks at the processes, and so the resolution of every time."""


def role(process: int) -> str:
    """Return a process's name of itself: `ray::RayTrainWorker`, or the program's file."""
    words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
    named = words[0] if words[0].startswith("ray::") else " ".join(Path(word).name for word in words[:3])
    return named.partition(".")[0].partition("(")[0].partition(" --")[0].strip()


class Watch:
    """What the processes below one have used: CPU seconds and roles, kept when they end.

    Args:
        root: the process whose descendants count, with itself.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.cpu: dict[int, float] = {}
        self.roles: dict[int, str] = {}

    def look(self) -> None:
        """Read each process's CPU time and name, which changes when Ray gives it work."""
        for process in list(tree(self.root)):
            try:
                self.cpu[process] = cpu_seconds([process])
                self.roles[process] = role(process) or self.roles.get(process, "?")  # a zombie has no name
            except (OSError, IndexError):
                continue  # it has just ended

    def by_role(self) -> dict[str, tuple[int, float]]:
        """Return role -> its processes so far, and their CPU seconds."""
        found: dict[str, list[float]] = defaultdict(list)
        for process, seconds in self.cpu.items():
            found[self.roles.get(process, "?")].append(seconds)
        return {name: (len(all_), sum(all_)) for name, all_ in found.items()}


def steps(folder: Path) -> int:
    """Return the steps that a trial has logged."""
    file = folder / "steps.jsonl"
    return sum("step" in json.loads(line) for line in file.read_text().splitlines()) if file.exists() else 0


def statuses(run: Path) -> dict[str, str]:
    """Return trial -> its status, of those in the sweep's record."""
    file = run / "trials.json"
    return {row["name"]: row["status"] for row in json.loads(file.read_text())} if file.exists() else {}


def sweep(folder: Path, trials: int, more: list[str]) -> tuple[list[tuple[float, float]], Watch]:
    """Run it; return seconds to the first step and from there to the end for each trial, and the processes."""
    settings = SETTINGS | {"tune.samples": str(trials), "run.dir": str(folder), "run.name": "start"}
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-m", "doppel_ray.tune", "--plain", *options, *more]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watch, run = Watch(process.pid), folder / "start"
    started: dict[str, float] = {}
    first: dict[str, float] = {}
    over: dict[str, float] = {}
    while process.poll() is None:
        time.sleep(POLL)
        watch.look()
        now = time.monotonic()
        for trial, status in statuses(run).items():
            if status == "waiting":
                continue
            started.setdefault(trial, now)
            if trial not in first and steps(run / "trials" / trial):
                first[trial] = now
            if status == "finished":
                over.setdefault(trial, now)
    if process.returncode != 0:
        sys.exit(f"python -m doppel_ray.tune ended with {process.returncode}")
    order = sorted(started, key=lambda name: started[name])
    ends = [over.get(name, time.monotonic()) for name in order]
    return [(first[name] - started[name], end - first[name]) for name, end in zip(order, ends, strict=True)], watch


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("more", nargs="*", help="options of doppel_ray.tune, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        times, watch = sweep(Path(scratch), options.trials, options.more)
    print("| trial | to the first step, s | from there to the end, s |\n|---|---|---|")
    for number, (start, rest) in enumerate(times, 1):
        print(f"| {number} | {start:.1f} | {rest:.1f} |")
    if len(times) > 1:
        print(f"| median from the second | {statistics.median(start for start, _ in times[1:]):.1f} | |")
    print("\n| process | how many | CPU seconds |\n|---|---|---|")
    found = watch.by_role()
    for name, (count, seconds) in sorted(found.items(), key=lambda item: -item[1][1]):
        print(f"| {name} | {count} | {seconds:.1f} |")
    print(f"| sum | {sum(count for count, _ in found.values())} | {sum(cpu for _, cpu in found.values()):.1f} |")


if __name__ == "__main__":
    main()
