"""A sweep of many tiny trials: `python scripts/bench_many.py --trials 200`.

Prints, for each tenth of the trials, what a trial cost (seconds of the sweep; CPU seconds of the driver alone) and the
driver's memory; then how long the report takes, and TensorBoard until it knows every trial. Flat columns are what is
wanted: a trial must not cost more because many have gone before it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench_memory import cpu_seconds

TINY = {
    "synth.compile": "false",
    "synth.duration": "0.5",
    "encoder.width": "8",
    "train.epochs": "1",
    "train.pairs_per_epoch": "64",
    "train.batch_size": "32",
    "train.cpus_per_worker": "0.3",
    "generators.0.num_cpus": "0.1",
    "probes.tasks": "[]",
    "tune.metric": "loss",
    "tune.mode": "min",
    "tune.scheduler": "fifo",
    "search": "{optim.lr: {loguniform: [1.0e-4, 1.0e-2]}}",
}


def driver(pid: int) -> tuple[float, float]:
    """CPU seconds and resident MiB of a process."""
    memory = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return cpu_seconds([pid]), int(memory.split()[1]) / 1024


def ended(run: Path) -> int:
    """Trials that are over."""
    file = run / "trials.json"
    return sum(trial["status"] == "finished" for trial in json.loads(file.read_text())) if file.exists() else 0


def sweep(folder: Path, trials: int) -> None:
    """Run it, and print a line for each tenth."""
    settings = TINY | {"tune.samples": str(trials), "run.dir": str(folder), "run.name": "many"}
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-m", "doppel_ray.tune", "--plain", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    print("| trials | seconds a trial | driver: CPU seconds a trial | driver: MiB |\n|---|---|---|---|")
    part = max(1, trials // 10)
    done, since, used = 0, time.monotonic(), 0.0
    while process.poll() is None:
        time.sleep(0.5)
        if ended(folder / "many") < done + part:
            continue
        now, (cpu, memory) = time.monotonic(), driver(process.pid)
        print(f"| {done + 1}-{done + part} | {(now - since) / part:.1f} | {(cpu - used) / part:.2f} | {memory:.0f} |")
        sys.stdout.flush()
        done, since, used = done + part, now, cpu
    if process.returncode != 0:
        sys.exit(f"python -m doppel_ray.tune ended with {process.returncode}")


def report(run: Path) -> None:
    """Time the report of the sweep."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "doppel_ray.report", str(run)], check=True, stdout=subprocess.DEVNULL)
    print(f"report: {time.monotonic() - began:.1f} s")


def tensorboard(run: Path, trials: int, port: int) -> None:
    """Time TensorBoard from its start until it lists every trial."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run / "trials"), "--port", str(port)]
    server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    try:
        while time.monotonic() - began < 300:
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=30) as answer:
                    if len(json.load(answer)) >= trials:
                        print(f"TensorBoard: {time.monotonic() - began:.1f} s")
                        return
            except OSError:
                continue
        sys.exit("TensorBoard did not list every trial in 300 s")
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--port", type=int, default=6199, help="for TensorBoard, on loopback (6199)")
    parser.add_argument("--keep", type=Path, help="folder to leave the run in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        sweep(folder, options.trials)
        report(folder / "many")
        tensorboard(folder / "many", options.trials, options.port)


if __name__ == "__main__":
    main()
