"""Environment variables that Ray reads when it is imported or started.

Importing this module sets `SETTINGS`, and `DEFAULTS` where they are not set. Command lines
also set `variables()` before they import Ray.
"""

import math
import os
import socket
import tempfile
from pathlib import Path

from doppel_ray.core.errors import ConfigError
from doppel_ray.core.process import home


def variables() -> dict[str, str]:
    """Return the variables for the cluster to join, or for a Ray on this machine alone; set them before importing Ray.

    May open a connection to see whether a cluster is running.
    """
    if address() is None:
        return ALONE
    # By default Ray sends its token only to a cluster that it finds without being given an address.
    return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")} if has_token() else {}


def address() -> str | None:
    """Return the address of the cluster to join: RAY_ADDRESS, or a Ray that `ray start` runs on this machine."""
    if given := os.environ.get("RAY_ADDRESS"):
        return None if given == "local" else given
    temporary = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))
    file = Path(temporary) / "ray" / "ray_current_cluster"
    found = file.read_text().strip() if file.exists() else ""
    # The file remains when `ray start` is killed.
    return found if found and is_listening(found) else None


def is_listening(address: str) -> bool:
    """Return whether something accepts connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def check_temporary_folder() -> None:
    """Refuse a temporary folder in which a Ray on this machine could not create its sockets.

    Raises:
        ConfigError: names the variable that sets the folder.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    folder = os.environ.get(name, "/tmp")
    socket_path = f"{folder}{SOCKET.format(pid=os.getpid())}"
    if (excess := len(os.fsencode(socket_path)) - SOCKET_LIMIT) > 0:
        raise ConfigError(
            f"{name} is {folder!r}, {len(os.fsencode(folder))} bytes long: Ray's sockets below it would have longer "
            f"names than the system allows, by {excess} bytes; set RAY_TMPDIR to a short folder, such as /tmp"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"{name} is {folder!r}, where Ray cannot write: {error.strerror}; set RAY_TMPDIR to a folder of your own"
        ) from None


def start_attempts(seconds: float) -> int:
    """Return how many attempts to start train workers take this many seconds together; at least one."""
    return max(1, math.ceil(seconds / float(os.environ[START_TIMEOUT])))


def has_token() -> bool:
    """Return whether Ray will find a token to authenticate with."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (home() / ".ray" / "auth_token").exists()


def watches_preemption() -> bool:
    """Return whether Ray Train watches for nodes that are about to be drained."""
    return os.environ.get(PREEMPTION_WATCHER, "1") != "0"


PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the live table is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own TensorBoard events
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # epochs between probes have no metric
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3",  # seconds of Ray Tune's own state that a kill -9 may lose
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Variables for every process, on a cluster and on one machine."""
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Variable: seconds that one attempt to start the train workers waits for resources; Ray's default of 60 is too short
on a busy machine. `train.start_timeout` decides how many attempts there are."""
DEFAULTS = {START_TIMEOUT: "120"}
"""Variables that a user may set otherwise."""
ALONE = {
    # Bind every server of a local Ray to 127.0.0.1. Linux has no other switch: Ray replaces a `_node_ip_address` of
    # 127.0.0.1 by the machine's outward address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    PREEMPTION_WATCHER: "0",  # would start a process per trial for notices that only a cluster gets
}
"""Variables for a Ray on this machine alone."""

TRAIN_WORKER = {
    # glibc returns large freed blocks to the system, and the kernel zeroes every page when they are allocated again.
    # Each step does this with all activations and loses a tenth of its time. These keep the blocks, in a single arena:
    # only the first arena can hold large blocks, and the thread that runs Ray Train's loop would get another one.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
    # Threads that wait at the end of a parallel loop sleep early, so that generators can use their core.
    "GOMP_SPINCOUNT": "20000",
}
"""Variables for processes that train on a CPU; read when the process starts."""
SOCKET = "/ray/session_2026-11-25_09-00-00_000000_{pid}/sockets/plasma_store"
"""The longest path of a socket that Ray creates in its temporary folder, for the process `pid`."""
SOCKET_LIMIT = 107
"""Bytes that Linux allows for the path of a socket."""

os.environ.update(SETTINGS)
for name, value in DEFAULTS.items():
    os.environ.setdefault(name, value)
