"""What bounds a trial on a cluster, by measured rates: `python scripts/simulate_scale.py --rates FILE --nodes ...`.

    --measure rates.json                  measure this machine (two minutes), and its GPU if there is one
    --rates rates.json --nodes 16x16@0.31 4x8+1@0.98 --workers 4     16 nodes of 16 CPUs, 4 of 8 CPUs and a GPU
    --rates rates.json --cluster cluster.yaml --size cpu=16@0.31 gpu=8+1@0.98 --workers 4
    --check                               measure, then train on 1, 2 and 3 local nodes: predicted against measured

The model: a stream that waits in a bounded buffer runs, once it is full or empty, at the pace of its slowest part. So
pairs/s is the smallest of these limits, each of which is what one part could do if it never had to wait:

    generators    CPUs that the train workers leave, by pairs/s of one; GPUs that generate, if their rate is given
    training      the batch over the time of a step: what the encoder takes for each worker's share, all-reduce of the
                  gradients and gathering of the embeddings, which are taken not to overlap with it
    network       what the trainers' nodes can take in, of pairs that are made on other nodes
    object store  pairs through the shared memory of the trainers' nodes: written once, read once
    coordinator   blocks that the one process of a trial which hands them out can hand out
    head          blocks that the head's server (GCS) can take note of, of --trials trials together
    cores         with --cores, nodes that share one machine: all the work of a pair, over the machine's cores

Nothing is assumed but the network (--gbps, 10: give your nodes' own) and the share of memory that Ray gives its object
store (30 %, its default).
"""

import os

from doppel_ray.cluster import ray_env

os.environ.update(ray_env.variables())  # before Ray is imported

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bench_memory import cpu_seconds, tree

from doppel_ray.config.data import DataConfig
from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.core import cli, provenance
from doppel_ray.core.errors import ConfigError
from doppel_ray.runs.metrics_log import read_rows

BLOCK = DataConfig().block_pairs
FLOAT = 4
"""Bytes of a gradient or an embedded number as they travel."""


@dataclass(frozen=True)
class Rates:
    """What was measured, in seconds of one core or GPU.

    Attributes:
        pair, block: a generator's, for each pair and, whatever its size, for each block.
        pair_bytes: of a pair's features.
        hand_out: the coordinating process's for each block.
        head: the head's server's for each block.
        step, step_pair: a train worker's on one core, for each step and for each pair of its share.
        parameters: of the model.
        embedded: numbers that a pair is embedded in, both views.
        store: bytes per second through the object store, in and out.
        gpu_pair: a GPU generator's for each pair; None: not known.
        gpu_step, gpu_step_pair: a GPU train worker's; None: not known.
        origin: machine, versions, commit and time of the measurement.
    """

    pair: float
    block: float
    pair_bytes: float
    hand_out: float
    head: float
    step: float
    step_pair: float
    parameters: int
    embedded: int
    store: float
    gpu_pair: float | None
    gpu_step: float | None
    gpu_step_pair: float | None
    origin: dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Nodes of one kind: how many, CPUs and GPUs of each, and dollars per hour of each."""

    count: int
    cpus: float
    gpus: float
    price: float


@dataclass(frozen=True)
class Trial:
    """How a trial is laid out.

    Attributes:
        batch, workers, worker_cpus: pairs of a batch over all train workers, and CPUs of each.
        on_gpus: train workers have a GPU each.
        gpu_generators: GPUs that generate.
        block: pairs per block.
        gbps: network of a node, in Gbit/s.
        cores: of the one machine that all nodes share; None: nodes are machines.
        trials: side by side, as this one, each on nodes of its own.
    """

    batch: int
    workers: int
    worker_cpus: float
    on_gpus: bool
    gpu_generators: int
    block: int
    gbps: float
    cores: int | None
    trials: int = 1


# --- the model --------------------------------------------------------------------------------------------------------


def per_core(rates: Rates, trial: Trial) -> float:
    """Return pairs per second of a generator on one core."""
    return trial.block / (rates.block + trial.block * rates.pair)


def step_seconds(rates: Rates, trial: Trial) -> float:
    """Return the seconds of a step, with the communication of the train workers.

    A ring of W workers sends each number 2 (W - 1) / W times out of every node when it reduces, and (W - 1) / W times
    when it gathers (Patarasu and Yuan, 2009).
    """
    share = trial.batch / trial.workers
    if trial.on_gpus:
        if rates.gpu_step is None or rates.gpu_step_pair is None:
            raise ConfigError("no rate of training on a GPU is known: --measure on a machine that has one")
        compute = rates.gpu_step + share * rates.gpu_step_pair
    else:
        compute = rates.step + share * rates.step_pair / trial.worker_cpus
    ring = (trial.workers - 1) / trial.workers * FLOAT * 8 / (trial.gbps * 1e9)
    return compute + ring * (2 * rates.parameters + trial.batch * rates.embedded)


def limits(rates: Rates, trial: Trial, kinds: list[Kind]) -> dict[str, float]:
    """Return the pairs per second that each part allows.

    Raises:
        ConfigError: the train workers do not fit, or a rate that is needed is not known.
    """
    trainers, free_there = place(trial, kinds)
    free = sum(kind.count * kind.cpus for kind in kinds) - trial.workers * trial.worker_cpus
    made = math.floor(free) * per_core(rates, trial)
    if trial.gpu_generators:
        if rates.gpu_pair is None:
            raise ConfigError("no rate of generating on a GPU is known: --measure on a machine that has one")
        made += trial.gpu_generators / rates.gpu_pair
    # Generators prefer other nodes: what is made beside the trainers is what these are short of.
    apart = (free - free_there) / free if free else 0.0
    found = {
        "generators": made,
        "training": trial.batch / step_seconds(rates, trial),
        "network": trainers * trial.gbps * 1e9 / 8 / (rates.pair_bytes * apart) if apart else float("inf"),
        "object store": trainers * rates.store / rates.pair_bytes,
        "coordinator": trial.block / rates.hand_out,
        "head": trial.block / rates.head / trial.trials,
    }
    if trial.cores is not None:
        work = 1 / per_core(rates, trial) + rates.step / trial.batch * trial.workers + rates.step_pair
        found["cores"] = trial.cores / (work + (rates.hand_out + rates.head) / trial.block)
    return found


def place(trial: Trial, kinds: list[Kind]) -> tuple[int, float]:
    """Return the number of nodes with train workers, packed as Ray Train does, and the CPUs left on them."""
    nodes, left, waiting = 0, 0.0, trial.workers
    for kind in sorted(kinds, key=lambda kind: -kind.gpus if trial.on_gpus else -kind.cpus):
        fit = int(min(kind.cpus / trial.worker_cpus, kind.gpus if trial.on_gpus else float("inf")))
        for _ in range(kind.count if fit else 0):
            if waiting:
                here = min(fit, waiting)
                nodes, left, waiting = nodes + 1, left + kind.cpus - here * trial.worker_cpus, waiting - here
    if waiting:
        what = f"{trial.worker_cpus:g} CPUs" + (" and a GPU" if trial.on_gpus else "")
        raise ConfigError(f"{waiting} of {trial.workers} train workers of {what} do not fit; add --nodes")
    return nodes, left


def report(rates: Rates, trial: Trial, kinds: list[Kind], buffer_mb: float, memory_gb: float) -> None:
    """Print the limits, generator cores, price and memory."""
    found = limits(rates, trial, kinds)
    bound, pace = min(found.items(), key=lambda item: item[1])
    print(f"{pace:.0f} pairs/s, bound by: {bound}\n\n| limit | pairs/s | times the pace |\n|---|---|---|")
    for name, rate in sorted(found.items(), key=lambda item: item[1]):
        print(f"| {name} | {rate:.0f} | {rate / pace:.1f} |")
    feeds = found["training"] / trial.workers / per_core(rates, trial)
    print(f"\n{feeds:.1f} generator cores feed one {'GPU' if trial.on_gpus else 'train worker'}")
    if price := sum(kind.count * kind.price for kind in kinds):
        print(f"${1e6 * price / (3600 * pace):.2f} for a million pairs, at ${price:.2f} an hour")
    busy = min(found["training"] / per_core(rates, trial), sum(kind.count * kind.cpus for kind in kinds))
    held = buffer_mb + 2 * busy * trial.block * rates.pair_bytes / 2**20
    print(f"the object store holds {held:.0f} MB at most: the buffer, and two blocks of each of {busy:.0f} generators")
    if memory_gb:
        print(f"that is {100 * held / (0.3 * memory_gb * 1024):.0f} % of the store of one node of {memory_gb:g} GB")


# --- measurements -----------------------------------------------------------------------------------------------------


def per_call(work: Callable[[], object], device: str, calls: int = 4) -> float:
    """Return seconds of a call: the median CPU time of this process, or the mean on a GPU."""
    import torch

    work()
    if device == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / calls
    took = []
    for _ in range(calls):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def line(points: dict[int, float]) -> tuple[float, float]:
    """Height at zero, at least 0, and slope of the line through the points, each weighing by its inverse."""
    slope, height = np.polyfit(list(points), list(points.values()), 1, w=[1 / value for value in points.values()])
    return max(0.0, float(height)), float(slope)


def training(experiment: Experiment, device: str) -> tuple[float, float]:
    """Return the fixed seconds of a step, and the seconds of each pair in it."""
    import torch

    from doppel_ray.data.pairs import PairMaker
    from doppel_ray.models.learner import Learner

    learner, maker = Learner(experiment, device=device), PairMaker.of(experiment.plain())

    def seconds(size: int) -> float:
        features, labels, ids = (part.to(device) for part in maker.labelled(torch.arange(size)))
        return per_call(lambda: learner.step(features, labels, ids, np.arange(size), 0), device)

    return line({size: seconds(size) for size in (32, 64, 128)})


def head_server() -> list[int]:
    """Return the process of the head's server (GCS) that this process has started."""
    names = {process: Path(f"/proc/{process}/cmdline").read_text().partition("\0")[0] for process in tree(os.getpid())}
    return [process for process, name in names.items() if "gcs_server" in name]


def generating(experiment: Experiment, sizes: Sequence[int] = (16, 64, 256), each: int = 10) -> tuple[float, ...]:
    """Seconds of a generator for each block and each pair; for each block, of who hands it out and of the head."""
    from bench_stream import stream

    made, handed, head = {}, [], []
    servers = head_server()
    for size in sizes:
        with stream(block=size, experiment=experiment) as batches:
            makers = {int(pid) for pid in next(batches)["generator"]}
            began, before, known = time.process_time(), cpu_seconds(makers), cpu_seconds(servers)
            for _ in range(each):
                next(batches)
            handed.append((time.process_time() - began) / each)
            head.append((cpu_seconds(servers) - known) / each)
            made[size] = (cpu_seconds(makers) - before) / each
    return *line(made), statistics.median(handed), statistics.mean(head)


def through_store(times: int = 8) -> float:
    """Bytes per second of 32 MB arrays that are written to the object store and read."""
    import ray

    array = np.ones(2**22)
    began = time.perf_counter()
    for _ in range(times):
        ray.get(ray.put(array)).sum()
    return times * array.nbytes / (time.perf_counter() - began)


def measure(experiment: Experiment) -> Rates:
    """Measure the rates of this machine."""
    import torch
    from bench_stream import local

    from doppel_ray.data.pairs import PairMaker
    from doppel_ray.models.learner import Learner

    torch.set_num_threads(1)
    with local():
        block, pair, hand_out, head = generating(experiment)
        store = through_store()
    step, step_pair = training(experiment, "cpu")
    gpu_pair = gpu_step = gpu_step_pair = None
    if torch.cuda.is_available():
        maker = PairMaker.of(experiment.plain(), "cuda")
        gpu_pair = per_call(lambda: maker(torch.arange(512)), "cuda") / 512
        gpu_step, gpu_step_pair = training(experiment, "cuda")
    features = PairMaker.of(experiment.plain())(torch.arange(1))
    model = Learner(experiment).model.eval()
    return Rates(
        pair=pair,
        block=block,
        pair_bytes=features.numel() * features.element_size(),
        hand_out=hand_out,
        head=max(head, 1e-4),  # what the clock of processes cannot see
        step=step,
        step_pair=step_pair,
        parameters=sum(weights.numel() for weights in model.parameters()),
        embedded=model(features[0].float()).embeddings.numel(),
        store=store,
        gpu_pair=gpu_pair,
        gpu_step=gpu_step,
        gpu_step_pair=gpu_step_pair,
        origin=provenance.gather(),
    )


# --- the check --------------------------------------------------------------------------------------------------------

TINY = {
    "synth.duration": "0.5",
    "encoder.width": "16",
    "train.batch_size": "64",
    "train.epochs": "3",
    "probes.tasks": "[]",
    "tune.metric": "loss",
    "tune.mode": "min",
}
"""An experiment that trains for seconds."""
LOOPBACK = 1000.0
"""Gbit/s between nodes of one machine: no limit."""


def check() -> None:
    """Real runs on 1, 2 and 3 local nodes of two CPUs each, all of which share this machine's cores."""
    cores = len(os.sched_getaffinity(0))
    experiment = read_experiment(None, TINY)
    rates = measure(experiment)
    block = min(experiment.data.block_pairs, experiment.train.batch_size)
    print(f"{cores} cores\n\n| nodes | generators | predicted, pairs/s | bound by | measured | measured / predicted |")
    print("|---|---|---|---|---|---|")
    for count in (1, 2, 3):
        trial = Trial(experiment.train.batch_size, 1, 0.9, False, 0, block, LOOPBACK, cores)
        found = limits(rates, trial, [Kind(count, 2, 0, 0.0)])
        bound, pace = min(found.items(), key=lambda item: item[1])
        real = trained(count, 2 * count - 1, pace)
        print(f"| {count} | {2 * count - 1} | {pace:.0f} | {bound} | {real:.0f} | {real / pace:.2f} |", flush=True)


def trained(count: int, generators: int, pace: float) -> float:
    """Return pairs per second of the best epoch but the first, on a cluster of `count` local nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    for _ in range(count - 1):
        cluster.add_node(num_cpus=2)
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = TINY | {
                "train.pairs_per_epoch": str(max(640, int(8 * pace))),
                "train.cpus_per_worker": "0.9",
                "generators.0.actors": str(generators),
                "run.dir": folder,
                "run.name": "run",
            }
            options = [part for key, value in settings.items() for part in (f"--{key}", value)]
            done = subprocess.run(
                [sys.executable, "-m", "doppel_ray.train", "--plain", *options],
                env=os.environ | {"RAY_ADDRESS": cluster.address},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(f"python -m doppel_ray.train failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            rows = [row for trial in Path(folder).glob("run/trials/0*") for row in read_rows(trial)]
    finally:
        cluster.shutdown()
    return max(row["pairs_per_second"] for row in rows[1:])


# --- the command line -------------------------------------------------------------------------------------------------


def kind(text: str, count: int | None = None) -> Kind:
    """`4x8+1@0.98`, or with a count `8+1@0.98`: nodes of 8 CPUs and a GPU, at 0.98 dollars an hour each."""
    found = re.fullmatch(r"(?:(\d+)x)?([\d.]+)(?:\+([\d.]+))?(?:@([\d.]+))?", text)
    if found is None or (found[1] is None) == (count is None):
        form = "COUNTxCPUS+GPUS@PRICE, such as 4x8+1@0.98" if count is None else "CPUS+GPUS@PRICE, such as 8+1@0.98"
        raise ConfigError(f"{text}: expected {form}; GPUs and price may be left out")
    return Kind(count or int(found[1]), float(found[2]), float(found[3] or 0), float(found[4] or 0))


def cluster_kinds(file: Path, sizes: list[str]) -> list[Kind]:
    """The nodes that a cluster file may grow to; what it leaves to the cloud to say, `--size` says."""
    given = dict(size.partition("=")[::2] for size in sizes)
    kinds = []
    for name, node in yaml.safe_load(file.read_text())["available_node_types"].items():
        found = node.get("resources", {})
        if name in given:
            kinds.append(kind(given[name], node.get("max_workers", 1)))
        elif "CPU" in found:
            kinds.append(Kind(node.get("max_workers", 1), found["CPU"], found.get("GPU", 0), 0.0))
        else:
            raise ConfigError(f"{file} does not say what a node of kind {name} has; give --size {name}=CPUS+GPUS@PRICE")
    return kinds


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure this machine, and write its rates here")
    parser.add_argument("--config", type=Path, help="with --measure: the experiment (the published recipe)")
    parser.add_argument("--check", action="store_true", help="predicted against measured, on 1, 2 and 3 local nodes")
    parser.add_argument("--rates", type=Path, metavar="FILE", help="rates that --measure has written")
    parser.add_argument("--nodes", nargs="+", default=[], metavar="COUNTxCPUS+GPUS@PRICE", help="4x8+1@0.98 and so on")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="cluster.yaml, in place of --nodes")
    parser.add_argument("--size", nargs="+", default=[], metavar="KIND=CPUS+GPUS@PRICE", help="of its kinds of nodes")
    parser.add_argument("--batch", type=int, default=768, help="pairs, over all train workers (768)")
    parser.add_argument("--workers", type=int, default=1, help="train workers (1)")
    parser.add_argument("--worker-cpus", type=float, default=1.0, help="CPUs of each (1)")
    parser.add_argument("--cpu-training", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument("--gpu-generators", type=int, default=0, help="GPUs that generate (0)")
    parser.add_argument("--block", type=int, default=BLOCK, help=f"pairs per block ({BLOCK})")
    parser.add_argument("--trials", type=int, default=1, help="side by side, each on nodes of its own (1)")
    parser.add_argument("--gbps", type=float, default=10.0, help="network of a node, Gbit/s (10)")
    parser.add_argument("--cores", type=int, help="all nodes share one machine with this many cores")
    parser.add_argument("--buffer-mb", type=float, default=256.0, help="data.buffer_mb (256)")
    parser.add_argument("--memory-gb", type=float, default=0.0, help="of the node that hands out blocks; 0: unknown")
    options = parser.parse_args(argv)
    if options.check:
        check()
        return 0
    if options.measure:
        rates = measure(read_experiment(options.config))
        options.measure.write_text(json.dumps(asdict(rates), indent=2) + "\n")
        print(f"rates are in {options.measure}")
        return 0
    if options.rates is None or bool(options.nodes) == bool(options.cluster):
        raise ConfigError("give --rates FILE (from --measure FILE), and either --nodes or --cluster")
    rates = Rates(**json.loads(options.rates.read_text()))
    kinds = cluster_kinds(options.cluster, options.size) if options.cluster else [kind(text) for text in options.nodes]
    trial = Trial(
        batch=options.batch,
        workers=options.workers,
        worker_cpus=options.worker_cpus,
        on_gpus=any(kind.gpus for kind in kinds) and not options.cpu_training,
        gpu_generators=options.gpu_generators,
        block=options.block,
        gbps=options.gbps,
        cores=options.cores,
        trials=options.trials,
    )
    report(rates, trial, kinds, options.buffer_mb, options.memory_gb)
    return 0


if __name__ == "__main__":
    cli.run(main)
