"""What this package logs, into a file of a trial."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def log_to(file: Path) -> logging.Handler:
    """Send what this package logs in this process to a file too, if its folder is on this machine."""
    handler: logging.Handler = logging.FileHandler(file) if file.parent.is_dir() else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("doppel_ray")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler
