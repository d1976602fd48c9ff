"""Ray Train's own record of a trial's checkpoints, which a trial goes on from, and how it is mended.

Ray Train writes the file in place. A kill -9 at that moment, or a full disk, leaves half of it or nothing, and Ray
Train then refuses to go on. The checkpoints themselves say all that it says. Of those that were deleted (train.keep) it
must say nothing.
"""

import json
import logging
from pathlib import Path
from typing import Any

import ray

from doppel_ray.core import files
from doppel_ray.core.errors import ConfigError
from doppel_ray.models import checkpoint

log = logging.getLogger(__name__)

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""The record's file, beside the checkpoints."""


def read(run: Path) -> dict[str, Any]:
    """The record of a run of Ray Train, mended if it is damaged.

    Args:
        run: folder with the checkpoints.

    Raises:
        FileNotFoundError: there is none.
    """
    file = run / SNAPSHOT
    try:
        return json.loads(file.read_text())
    except ValueError:
        state = _made_again(run)
    log.warning("%s was damaged; made again of %d checkpoints", file, len(state["checkpoint_results"]))
    files.replace(run / SNAPSHOT, json.dumps(state))
    return state


def forget_deleted(run: Path) -> None:
    """Let the record of a run of Ray Train, which is not running, say nothing of checkpoints that are gone.

    Ray Train would not start without them.
    """
    if not (run / SNAPSHOT).exists():
        return
    state = read(run)
    known = zip(state["checkpoint_results"], state["checkpoint_report_indices"], strict=True)
    there = [(result, index) for result, index in known if (run / result["checkpoint_dir_name"]).is_dir()]
    state["checkpoint_results"] = [result for result, _ in there]
    state["checkpoint_report_indices"] = [index for _, index in there]
    files.replace(run / SNAPSHOT, json.dumps(state))


def _made_again(run: Path) -> dict[str, Any]:
    """The record that Ray Train would have written of the whole checkpoints in a folder."""
    found = [
        {"version": 0, "checkpoint_dir_name": folder.name, "metrics": checkpoint.about(folder)["metrics"]}
        for folder in run.iterdir()
        if _is_whole(folder)
    ]
    found.sort(key=lambda result: result["metrics"]["pairs"])
    lists = ("pending_training_results", "pending_validation_specs", "validated_checkpoint_dir_names")
    more = ("timed_out_validation_checkpoint_dir_names", "failed_validation_checkpoint_dir_names")
    return {
        "ray_version": ray.__version__,
        "checkpoint_results": found,
        "checkpoint_report_indices": list(range(len(found))),
        "latest_checkpoint_result": found[-1] if found else None,
        "current_report_index": len(found),
        **{name: [] for name in (*lists, *more)},
    }


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint can be read: the last one may have been cut short too."""
    try:
        checkpoint.load(folder)
        checkpoint.load_resume(folder)
    except (ConfigError, OSError, RuntimeError):
        return False
    return True
