"""`python -m doppel_ray.tune`: train and probe a sweep of experiments, the main job."""

import os
from collections.abc import Sequence
from pathlib import Path

import doppel_ray
from doppel_ray.cluster import ray_env
from doppel_ray.core import cli

# Beside the installed package, also where `ray submit` has copied this file elsewhere.
DEFAULT_CONFIG = Path(doppel_ray.__file__).parent.parent / "tune_configs" / "quickstart.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.update(ray_env.variables())  # before Ray is imported
    from doppel_ray.tune.sweep import run_command

    return run_command("tune", "Train and probe a sweep of experiments.", DEFAULT_CONFIG, argv)


if __name__ == "__main__":
    cli.run(main)
