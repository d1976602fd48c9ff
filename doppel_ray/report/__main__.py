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
    parser.add_argument(
        "runs", nargs="+", type=cli.folder_or_url, metavar="RUN_DIR", help="folder of a run, or s3://BUCKET/PREFIX/NAME"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="folder for the report, or FILE.html for the page alone (default: the run's folder; for several runs, "
        f"{COMPARISON}/ in the first one's)",
    )
    args = parser.parse(argv)
    if args.out is None and any(map(is_s3, args.runs)):
        raise ConfigError("a run in object storage needs a place for its report: add --out PATH")
    console = cli.console()
    with tempfile.TemporaryDirectory() as scratch:
        runs = [read(_folder(run, Path(scratch, str(number)), console)) for number, run in enumerate(args.runs)]
        if len({run.folder.resolve() for run in runs}) < len(runs):
            raise ConfigError("RUN_DIR: the same run is given twice")
        make(runs, place(runs, args.out), console)
    return 0


def _folder(run: str, scratch: Path, console: Console) -> Path:
    """Return a run's folder; for a run in object storage a copy in `scratch`, without its weights."""
    if not is_s3(run):
        return Path(run)
    # Late: these load torch, which the report of a folder does not need.
    from doppel_ray.models.checkpoint import RESUME, WEIGHTS
    from doppel_ray.runs.fetch import download

    there = S3Path.parse(run)
    download(there, scratch / there.name, partial(console.print, markup=False), without=(WEIGHTS, RESUME))
    return scratch / there.name


if __name__ == "__main__":
    cli.run(main)
