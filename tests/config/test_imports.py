"""What importing the configuration loads."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("config.experiment", ["ray", "matplotlib", "sklearn", "pyarrow"]),
        *((f"config.{name}", ["ray", "torch", "numpy"]) for name in ("data", "run", "search", "train", "tune")),
        *((f"core.{name}", ["ray", "torch", "numpy"]) for name in ("cli", "object_storage", "provenance")),
        ("cluster.ray_env", ["ray", "torch", "numpy"]),
    ],
)
def test_import_loads_no_unneeded_library(module: str, unneeded: list[str]) -> None:
    """Sections beside torch code need torch; every other part of the configuration can be read without it."""
    code = f"import sys, doppel_ray.{module}\nprint(*(set({unneeded}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
