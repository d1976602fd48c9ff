"""`python -m doppel_ray.report`: the page, leaderboard and figures of a run, finished or not, or of several."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from doppel_ray.core import cli
from doppel_ray.core.errors import ConfigError
from doppel_ray.core.object_storage import S3Path, is_s3
from doppel_ray.report.writer import COMPARISON, make, place
from doppel_ray.runs.reader import read


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser("report", "Page, leaderboard and figures of a run, finished or not, or of several compared.")
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a run, or s3://BUCKET/PREFIX/NAME")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="where the report goes: a folder, or FILE.html for the page alone (default: the run's folder; of several "
        f"runs, {COMPARISON}/ in that of the first)",
    )
    args = parser.parse(argv)
    if args.out is None and any(map(is_s3, args.runs)):
        raise ConfigError("a run that is in object storage has no folder here for its report: say where, --out PATH")
    console = cli.console()
    with tempfile.TemporaryDirectory() as scratch:
        runs = [read(_folder(run, Path(scratch, str(number)), console)) for number, run in enumerate(args.runs)]
        if len({run.folder.resolve() for run in runs}) < len(runs):
            raise ConfigError("the same RUN_DIR is given twice")
        make(runs, place(runs, args.out), console)
    return 0


def _folder(run: str, scratch: Path, console: Console) -> Path:
    """A run's folder; of one in object storage what a report needs of it, for the moment."""
    if not is_s3(run):
        return Path(run)
    from doppel_ray.models.checkpoint import (
        RESUME,
        WEIGHTS,  # with torch, which a report of a folder need not load
    )
    from doppel_ray.runs.mirror import download

    there = S3Path.parse(run)
    download(there, scratch / there.name, partial(console.print, markup=False), without=(WEIGHTS, RESUME))
    return scratch / there.name


if __name__ == "__main__":
    cli.run(main)
