"""`python -m doppel_ray.probe`: score one checkpoint on every task, with the same numbers as in a sweep."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from doppel_ray.config.probes import ProbesConfig
from doppel_ray.core import cli, files
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.score_names import VALID
from doppel_ray.models import checkpoint
from doppel_ray.probe.evaluate import BASELINES, UNTRAINED_PAIRS, TaskEmbedder, evaluate_checkpoint
from doppel_ray.report.leaderboard import show


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["fetch"]:
        from doppel_ray.probe.datasets import fetch

        return fetch.main(argv[1:])
    parser = cli.Parser("probe", "Score one checkpoint and its baselines on the probe tasks.")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="a checkpoint, such as runs/NAME/trials/TRIAL/checkpoints/epoch_0003",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores to this file")
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
        raise ConfigError("probes.tasks is empty; expected at least one task")
    if args.json:
        _check_writable(args.json)
    embedder = TaskEmbedder(args.checkpoint, probes.cache)
    scores = evaluate_checkpoint(args.checkpoint, probes.build(), probes.protocol, embedder)
    if args.json:
        files.replace(args.json, json.dumps(scores, indent=1))
    pairs = scores.pop(UNTRAINED_PAIRS, None)
    cli.console().print(_table(str(args.checkpoint), scores))
    if pairs is not None:
        print(
            f"untrained: the same encoder before its first step, with batch-norm statistics of {pairs:.0f} of its pairs"
        )
    return 0


def _check_writable(file: Path) -> None:
    """Make the folder of a result.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file.with_name(f".{file.name}.check"), "")
        file.with_name(f".{file.name}.check").unlink()
    except OSError as error:
        raise ConfigError(f"--json {file} cannot be written: {error.strerror or error}") from None
    if file.is_dir():
        raise ConfigError(f"--json {file} is a folder; expected the name of a file")


def _table(title: str, scores: dict[str, float]) -> Table:
    """Return a row for each test score, with its interval, validation score and baselines."""
    table = Table(title=title, title_justify="left")
    for name in ("task", "metric", "checkpoint", "95 %", "validation", "untrained", "mel statistics"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for name, value in scores.items():
        if name.endswith((VALID, *(f"_{which}" for which in ("low", "high", *BASELINES)))):
            continue
        _, task, metric = name.split("/")
        low, high, *baselines = (scores.get(f"{name}_{which}") for which in ("low", "high", "untrained", "mel"))
        span = f"{show(low)} to {show(high)}" if low is not None else ""
        beside = (scores.get(f"{name}{VALID}"), *baselines)
        table.add_row(task, metric, show(value), span, *("" if given is None else show(given) for given in beside))
    return table


if __name__ == "__main__":
    cli.run(main)
