"""`python -m doppel_ray.train`: train and probe one experiment."""

import os
from collections.abc import Sequence

from doppel_ray.cluster import ray_env
from doppel_ray.core import cli


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.update(ray_env.variables())  # before Ray is imported
    from doppel_ray.tune.sweep import run_command

    return run_command("train", "Train and probe one experiment; ignores a `search` section in the file.", None, argv)


if __name__ == "__main__":
    cli.run(main)
