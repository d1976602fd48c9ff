"""`python -m doppel_ray.probe`: every task on one checkpoint, the same numbers as inside a sweep."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import VALID
from doppel_ray.models import checkpoint
from doppel_ray.probe.evaluate import BASELINES, UNTRAINED_PAIRS, ProbesConfig, evaluate
from doppel_ray.report.leaderboard import show


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["fetch"]:
        from doppel_ray.probe.datasets import fetch

        return fetch.main(argv[1:])
    parser = cli.Parser("probe", "Probe one checkpoint, beside its baselines.")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="a checkpoint, such as runs/NAME/trials/TRIAL/checkpoints/epoch_0003",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores here too")
    parser.add_argument("--tasks", metavar="LIST", help="short for --probes.tasks")
    parser.add_argument("--protocol", metavar="KIND", help="short for --probes.protocol.kind")
    parser.add_keys(ProbesConfig, "probes.")
    args = parser.parse(argv)
    for short, key in (("tasks", "probes.tasks"), ("protocol", "probes.protocol.kind")):
        if (given := getattr(args, short)) is not None:
            args.overrides[key] = given
    probes = cli.parse_section("probes", ProbesConfig, args.overrides)
    probes.check(checkpoint.recipe(args.checkpoint).synth.sample_rate)
    if not probes.tasks:
        raise ConfigError("probes.tasks is empty: there is nothing to ask")
    scores = evaluate(args.checkpoint, probes)
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1))
    table = Table(title=str(args.checkpoint), title_justify="left")
    for name in ("task", "metric", "checkpoint", "95 %", "validation", "untrained", "mel statistics"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    pairs = scores.pop(UNTRAINED_PAIRS, None)
    for name, value in scores.items():
        if name.endswith((VALID, *(f"_{which}" for which in ("low", "high", *BASELINES)))):
            continue
        _, task, metric = name.split("/")
        low, high, *baselines = (scores.get(f"{name}_{which}") for which in ("low", "high", "untrained", "mel"))
        span = f"{show(low)} to {show(high)}" if low is not None else ""
        beside = (scores.get(f"{name}{VALID}"), *baselines)
        table.add_row(task, metric, show(value), span, *("" if given is None else show(given) for given in beside))
    cli.console().print(table)
    if pairs is not None:
        print(
            f"untrained: the same encoder before its first step, with batch-norm statistics of {pairs:.0f} of its pairs"
        )
    return 0


if __name__ == "__main__":
    cli.run(main)
