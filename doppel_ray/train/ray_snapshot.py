"""Ray Train's own record of a trial's checkpoints, from which a trial resumes, and its repair.

Ray Train writes the file in place. A kill -9 at that moment, or a full disk, leaves half of it or nothing, and Ray
Train then refuses to resume. The record is rebuilt from the checkpoints, which hold the same facts. It must not list
checkpoints that were deleted (train.keep).
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
    """Return the record of a run of Ray Train, rebuilt if it is damaged.

    Args:
        run: folder with the checkpoints.

    Raises:
        FileNotFoundError: there is no record.
    """
    file = run / SNAPSHOT
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        state = _rebuild(run)
    log.warning("%s was damaged; rebuilt from %d checkpoints", file, len(state["checkpoint_results"]))
    files.replace(run / SNAPSHOT, json.dumps(state))
    return state


def forget_deleted(run: Path) -> None:
    """Remove deleted checkpoints from the record of a run of Ray Train that is not running.

    Ray Train does not start while its record lists them.
    """
    if not (run / SNAPSHOT).exists():
        return
    state = read(run)
    known = zip(state["checkpoint_results"], state["checkpoint_report_indices"], strict=True)
    there = [(result, index) for result, index in known if (run / result["checkpoint_dir_name"]).is_dir()]
    state["checkpoint_results"] = [result for result, _ in there]
    state["checkpoint_report_indices"] = [index for _, index in there]
    files.replace(run / SNAPSHOT, json.dumps(state))


def _rebuild(run: Path) -> dict[str, Any]:
    """Return the record that Ray Train would have written of the complete checkpoints in a folder."""
    found = [
        {"version": 0, "checkpoint_dir_name": folder.name, "metrics": checkpoint.about(folder)["metrics"]}
        for folder in run.iterdir()
        if _is_complete(folder)
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


def _is_complete(folder: Path) -> bool:
    """Return whether a checkpoint can be read: the last one may be cut short too."""
    try:
        checkpoint.load(folder)
        checkpoint.load_resume(folder)
    except (ConfigError, OSError, RuntimeError):
        return False
    return True
