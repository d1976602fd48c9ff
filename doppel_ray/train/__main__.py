"""`python -m doppel_ray.train`: train and probe one experiment."""

import doppel_ray.cluster.ray_env  # isort: skip  # noqa: F401  # before anything of Ray's

from collections.abc import Sequence

from doppel_ray.core import cli
from doppel_ray.tune.sweep import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("train", "Train and probe one experiment; a search: section in the file is ignored.", None, argv)


if __name__ == "__main__":
    cli.run(main)
