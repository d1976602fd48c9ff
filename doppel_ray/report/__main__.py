"""`python -m doppel_ray.report`: the page, leaderboard and figures of a run, finished or not, or of several."""

from collections.abc import Sequence
from pathlib import Path

from doppel_ray import command
from doppel_ray.report import read
from doppel_ray.report.writer import COMPARISON, make, place
from doppel_ray.section import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    parser = command.Parser(
        "report", "Page, leaderboard and figures of a run, finished or not, or of several compared."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a run")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="where the report goes: a folder, or FILE.html for the page alone (default: the run's folder; of several "
        f"runs, {COMPARISON}/ in that of the first)",
    )
    args = parser.parse(argv)
    runs = [read(folder) for folder in args.runs]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise ConfigError("the same RUN_DIR is given twice")
    make(runs, place(runs, args.out), command.screen())
    return 0


if __name__ == "__main__":
    command.run(main)
