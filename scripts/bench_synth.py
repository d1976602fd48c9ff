"""Time the synthesizers against SynthAX and torchsynth, in the same run: `python scripts/bench_synth.py`.

`--limit` compares them with the processor's limit, `--memory` the memory of 100,000 sounds with that of 1,000.

A turn draws parameters and renders a batch of one-second sounds at 16 kHz; sounds per second are from the best turn of
each, since other processes can only slow a turn down. The contestants take turns, so that all meet the same load.
A peer that is not installed here can live in another interpreter: `--synthax VENV/bin/python`.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ARCHITECTURES = ("voice", "voicefm", "parametric")


def ours(architecture: str, batch: int) -> Callable[[], Any]:
    """Return a function that samples and renders the next batch."""
    from doppel_ray.synth import Synth

    synth, turn = Synth.create(architecture, compile=True), iter(range(10**9))

    def play() -> Any:
        start = batch * next(turn)
        indices = range(start, start + batch)
        return synth.render(synth.sample(0, indices), indices=indices)

    return play


def synthax(architecture: str, batch: int) -> Callable[[], Any]:
    """The same with SynthAX, as its readme has it: initialisation and rendering under `jax.jit`."""
    import jax
    import synthax.synth
    from synthax.config import SynthConfig

    kinds = {"voice": "Voice", "voicefm": "VoiceExpanded", "parametric": "ParametricSynth"}
    counts = {"sine": 2, "square_saw": 2, "fm_sine": 1, "fm_square_saw": 1} if architecture == "parametric" else {}
    config = SynthConfig(batch, sample_rate=16000, buffer_size_seconds=1.0, control_rate=480)
    synth = getattr(synthax.synth, kinds[architecture])(config=config, **counts)
    sample, render = jax.jit(synth.init), jax.jit(synth.apply)
    turn = iter(range(10**9))
    return lambda: render(sample(jax.random.PRNGKey(next(turn)))).block_until_ready()


def torchsynth(architecture: str, batch: int) -> Callable[[], Any]:
    """The same with torchsynth, which has only Voice."""
    from torchsynth.config import SynthConfig
    from torchsynth.synth import Voice

    config = SynthConfig(
        batch_size=batch, sample_rate=16000, buffer_size_seconds=1.0, control_rate=480, reproducible=False
    )
    synth, turn = Voice(config), iter(range(10**9))
    return lambda: synth(next(turn))


CONTESTANTS = {"ours": ours, "synthax": synthax, "torchsynth": torchsynth}


def work(name: str, architecture: str, batch: int, seconds: float, threads: int) -> None:
    """Run a contestant: for each line on stdin, play for `seconds` and print the best turn."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=" + ("true" if threads > 1 else "false")
    started = time.perf_counter()
    if name != "synthax":
        import torch

        torch.set_num_threads(threads)
    play = CONTESTANTS[name](architecture, batch)
    play()
    print(json.dumps({"first": time.perf_counter() - started}), flush=True)
    for _ in sys.stdin:
        best, until = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < until:
            before = time.perf_counter()
            play()
            best = min(best, time.perf_counter() - before)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rate": batch / best, "peak": peak}), flush=True)


def race(architecture: str, batch: int, options: argparse.Namespace) -> None:
    """Print a row for each contestant that starts."""
    pythons = {"ours": sys.executable, "synthax": options.synthax, "torchsynth": options.torchsynth}
    workers = {}
    for name, python in pythons.items():
        if name == "torchsynth" and architecture != "voice":
            continue
        arguments = [__file__, "--work", name, architecture, str(batch), str(options.seconds), str(options.threads)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        worker = subprocess.Popen([python, *arguments], stderr=subprocess.PIPE, **pipes)
        first = _line(worker)
        if first is None:
            assert worker.stderr
            reason = (worker.stderr.read().strip().splitlines() or ["it ended"])[-1]
            print(f"{architecture:>11} {batch:>5}  {name}: left out, {reason}", flush=True)
            continue
        workers[name] = (worker, first["first"])
    results: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for name, (worker, _) in workers.items():
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()
            measured = _line(worker) or {"rate": 0.0, "peak": 0.0}
            if measured["rate"] >= results.get(name, {"rate": 0.0})["rate"]:
                results[name] = measured
    for name, (worker, first_batch) in workers.items():
        assert worker.stdin
        worker.stdin.close()
        worker.wait()
        ratio = results["ours"]["rate"] / results[name]["rate"] if "ours" in results else float("nan")
        versus = "" if name == "ours" else f"  ours is {ratio:.1f} times as fast"
        print(
            f"{architecture:>11} {batch:>5}  {name:<10} {results[name]['rate']:>8.0f} sounds/s, "
            f"first batch after {first_batch:.1f} s, peak {results[name]['peak']:.0f} MiB{versus}",
            flush=True,
        )


FUNCTIONS = ("exp2m1", "cosine", "tanh")


def transcendentals(architecture: str) -> dict[str, float]:
    """Count the calls of each transcendental function per sample of sound, in an eager render."""
    from unittest import mock

    from doppel_ray.synth import Synth, maths, modules

    synth, counts = Synth.create(architecture, compile=False), dict.fromkeys(FUNCTIONS, 0)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any) -> Any:
            if x.shape[0] == synth.samples:
                counts[name] += x.numel()
            return function(x)

        return call

    with contextlib.ExitStack() as stack:
        for name in FUNCTIONS:
            function = counted(name, getattr(maths, name))
            for module in (maths, modules):
                stack.enter_context(mock.patch.object(module, name, function))
        synth.render(synth.sample(0, range(16)))
    return {name: count / (16 * synth.samples) for name, count in counts.items()}


def limit(architecture: str, seconds: float) -> None:
    """Compare the speed of one thread with that of the transcendental functions alone."""
    import torch

    from doppel_ray.synth import compiled, maths

    torch.set_num_threads(1)

    def best(play: Callable[[], Any]) -> float:
        play()
        fastest, until = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < until:
            before = time.perf_counter()
            play()
            fastest = min(fastest, time.perf_counter() - before)
        return fastest

    counts, data = transcendentals(architecture), torch.linspace(-1.0, 1.0, 8192)  # stays in the first-level cache
    phases = (data * 2**31).to(torch.int32)
    needed = 0.0
    for name, count in counts.items():
        argument = phases if name == "cosine" else data
        program = compiled.program(getattr(maths, name), (argument,), f"bench {name}", True)
        assert program is not None
        cost = best(lambda program=program, argument=argument: program(argument)) / len(data)  # type: ignore[misc]
        needed += count * cost
        print(f"{architecture:>11}  {count:.0f} {name} a sample, {1e-6 / cost:.0f} million a second", flush=True)
    batch = 128
    bound, real = 1.0 / (16000 * needed), batch / best(ours(architecture, batch))
    print(
        f"{architecture:>11}  these alone would allow {bound:.0f} sounds/s on one thread; ours makes {real:.0f} there, "
        f"{100 * real / bound:.0f} % of it"
    )


def memory(architecture: str) -> None:
    """Print the peak memory of processes that make many sounds, 128 at a time."""
    peaks = {}
    for sounds in (1_000, 100_000):
        code = (
            "import resource, torch; from doppel_ray.synth import Synth; torch.set_num_threads(2)\n"
            f"synth = Synth.create({architecture!r}, compile=True)\n"
            f"for start in range(0, {sounds}, 128):\n"
            "    indices = range(start, start + 128); synth.render(synth.sample(0, indices), indices=indices)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        peaks[sounds] = float(output.split()[-1])
        print(f"{architecture:>11}  {sounds:>7} sounds, 128 at a time: peak {peaks[sounds]:.0f} MiB", flush=True)
    print(f"{architecture:>11}  ratio {peaks[100_000] / peaks[1_000]:.2f}")


def _line(worker: subprocess.Popen[str]) -> dict[str, float] | None:
    assert worker.stdout
    for line in worker.stdout:
        if line.startswith("{"):
            found: dict[str, float] = json.loads(line)
            return found
    return None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--architecture", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, help="which to race")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128, 512], help="sounds in a batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads for each contestant")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contestant plays")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each plays in a round")
    parser.add_argument("--synthax", default=sys.executable, help="an interpreter that has synthax")
    parser.add_argument("--torchsynth", default=sys.executable, help="an interpreter that has torchsynth")
    parser.add_argument("--limit", action="store_true", help="instead: compare with the processor's limit")
    parser.add_argument("--memory", action="store_true", help="instead: compare the memory of few and many sounds")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, architecture, batch, seconds, threads = options.work
        work(name, architecture, int(batch), float(seconds), int(threads))
        return
    for architecture in options.architecture:
        if options.limit:
            limit(architecture, options.seconds)
        if options.memory:
            memory(architecture)
        if options.limit or options.memory:
            continue
        for batch in options.batch:
            race(architecture, batch, options)


if __name__ == "__main__":
    main()
