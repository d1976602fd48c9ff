"""`python -m doppel_ray.tune`: train and probe a sweep of experiments, the main job."""

import doppel_ray.cluster.ray_env  # isort: skip  # before anything of Ray's

from collections.abc import Sequence
from pathlib import Path

import doppel_ray
from doppel_ray.core import cli
from doppel_ray.tune.sweep import run_command

# Beside the installed package, also where `ray submit` has copied this file elsewhere.
DEFAULT_CONFIG = Path(doppel_ray.__file__).parent.parent / "tune_configs" / "quickstart.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("tune", "Train and probe a sweep of experiments.", DEFAULT_CONFIG, argv)


if __name__ == "__main__":
    cli.run(main)
