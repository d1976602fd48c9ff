"""Memory over a long run: `python scripts/bench_memory.py` trains 20 times the quickstart's steps and watches.

One trial of the quickstart, by `python -m doppel_ray.tune` itself, with more epochs. Every few seconds the private
memory of each process (what it shares with others is left out) and what Ray's object store holds are written down;
the table then compares the fourth tenth of the time, when the first probe is over and its process is kept for the next
one, with the last tenth. Flat is what is hoped for.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROLES = {
    "ray::RayTrainWorker": "train worker",
    "ray::MapWorker": "generators",
    "ray::SplitCoordinator": "stream",
    "ray::ImplicitFunc": "trial",
    "ray::_probe": "probe",
}
"""How a process calls itself -> what it does."""


def children() -> dict[int, list[int]]:
    """Parent -> children, of every process."""
    found: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has just ended
            found[parent].append(int(folder.name))
    return found


def tree(root: int) -> Iterator[int]:
    """A process and everything below it."""
    below, todo = children(), [root]
    while todo:
        process = todo.pop()
        todo += below.get(process, [])
        yield process


def cpu_seconds(processes: Iterable[int]) -> float:
    """Of the processor, that these processes have used."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def role(process: int, root: int) -> str:
    if process == root:
        return "driver"
    words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    for start, name in ROLES.items():
        if words.startswith(start):
            return name
    return "raylet" if "raylet/raylet " in words else "Ray's other processes"


def sample(root: int) -> dict[str, float]:
    """MiB by role, for a process and everything below it."""
    found: dict[str, float] = defaultdict(float)
    for process in tree(root):
        try:
            name = role(process, root)
            kept = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        except (OSError, ValueError):
            continue
        found[name] += int(kept["Anonymous"].split()[0]) / 1024
        if name == "raylet":
            found["object store"] += int(status["RssShmem"].split()[0]) / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--epochs", type=int, default=60, help="epochs; the quickstart has 3")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two looks")
    parser.add_argument("--csv", type=Path, help="write every look here too")
    options = parser.parse_args()
    command = [sys.executable, "-m", "doppel_ray.tune", "--plain", "--search.pairs.delta", "{grid: [0.1]}"]
    command += ["--tune.scheduler", "fifo", "--train.epochs", str(options.epochs), "--probes.every", "10"]
    command += ["--train.cpus_per_worker", "1"]
    looks: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        run = subprocess.Popen([*command, "--run.dir", folder, "--run.name", "memory"], stdout=log, stderr=log)
        while run.poll() is None:
            looks.append({"seconds": time.monotonic() - began, **sample(run.pid)})
            time.sleep(options.every)
        log.seek(0)
        print(*log.read().splitlines()[-4:], sep="\n")
        if run.returncode:
            sys.exit(run.returncode)
    looks = [look for look in looks if "train worker" in look and "generators" in look]
    if len(looks) < 20:
        sys.exit(f"only {len(looks)} looks at a trainer at work; take more --epochs")
    names = sorted({name for look in looks for name in look} - {"seconds"})
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["seconds", *names], restval=0.0)
            writer.writeheader()
            writer.writerows(looks)
    tenth = len(looks) // 10
    first, last = looks[3 * tenth : 4 * tenth], looks[-tenth:]
    print(f"\n{len(looks)} looks over {looks[-1]['seconds'] - looks[0]['seconds']:.0f} s of training, MiB, mean (most)")
    print(f"{'':24}{'fourth tenth':>18}{'last tenth':>18}{'ratio':>8}")
    for name in names:
        early, late = ([look.get(name, 0.0) for look in part] for part in (first, last))
        means = [sum(part) / len(part) for part in (early, late)]
        shown = [f"{mean:.0f} ({max(part):.0f})" for mean, part in zip(means, (early, late), strict=True)]
        print(f"{name:24}{shown[0]:>18}{shown[1]:>18}{means[1] / means[0] if means[0] else float('nan'):>8.2f}")


if __name__ == "__main__":
    main()
