"""Log files of trials."""

import logging
from pathlib import Path


def log_to(file: Path) -> logging.Handler:
    """Also log this package's messages to a file, or to standard error if its folder is not on this machine."""
    handler: logging.Handler = (
        logging.FileHandler(file, encoding="utf-8") if file.parent.is_dir() else logging.StreamHandler()
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("doppel_ray")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler
