"""Where is kept what one process need not make again after another: compiled programs, decoded sounds."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$DOPPEL_RAY_CACHE`, or `doppel_ray` in the user's cache folder. It may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DOPPEL_RAY_CACHE") or Path(home) / "doppel_ray")
