"""What Ray reads from the environment when it is imported: command lines import this before anything of Ray's."""

import os
import socket
from pathlib import Path


def address() -> str | None:
    """Address of the cluster to join: RAY_ADDRESS, or that of a Ray that `ray start` has started on this machine."""
    if asked := os.environ.get("RAY_ADDRESS"):
        return None if asked == "local" else asked
    temporary = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))
    file = Path(temporary) / "ray" / "ray_current_cluster"
    found = file.read_text().strip() if file.exists() else ""
    # `ray start` leaves its address behind when it is killed.
    return found if found and answers(found) else None


def answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def has_token() -> bool:
    """Whether there is a token to show to a cluster, at any of the places where Ray looks for one."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").exists()


def drains() -> bool:
    """Whether Ray Train watches for nodes that are to be drained."""
    return os.environ.get(DRAINS, "1") != "0"


DRAINS = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the live table is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard's events are written by the trial itself, once
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # epochs between probes have no metric
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3",  # how much of its own record Ray Tune may lose to a kill -9
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",  # the default of 60 is short for a busy machine
    "RAY_DEDUP_LOGS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
ALONE = {
    # Every server of a local Ray binds to 127.0.0.1. Linux has no other switch: a `_node_ip_address` of 127.0.0.1
    # is replaced by the machine's outward address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    DRAINS: "0",  # a process per trial, for notices that only a cluster gets
}
"""For a Ray on this machine alone."""

TRAIN_WORKER = {
    # glibc hands large blocks back when they are freed, and the kernel clears every page of them when they are asked
    # for again, as a step does with all its activations: a tenth of its time. Here they are kept; in one arena, since
    # only the first can hold large blocks, and Ray Train's loop runs in a thread that would have another.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_ARENA_MAX": "1",
    # Threads that wait long for the others at the end of a loop sleep, and leave their processor to the generators.
    "GOMP_SPINCOUNT": "20000",
}
"""For the processes that train on a CPU; read when they start."""

os.environ.update(SETTINGS)
if address() is None:
    os.environ.update(ALONE)
elif has_token():
    # Ray by itself shows its token to no cluster whose address it is given, and RAY_ADDRESS and ours are given.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
