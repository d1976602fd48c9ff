"""Record where results come from: versions, commit, machine, command."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import doppel_ray
from doppel_ray.core.process import available_cpus

PACKAGES = ("ray", "torch", "torchaudio", "numpy", "pyarrow", "scikit-learn")


def gather() -> dict[str, Any]:
    """Return versions, commit, machine and command of this process as plain data."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "commit": commit(),
        "versions": {
            "doppel_ray": doppel_ray.__version__,
            "python": platform.python_version(),
            **{name: version for name in PACKAGES if (version := _version(name))},
        },
        "machine": {"processor": _processor(), "cpus": available_cpus(), "system": platform.platform()},
    }


def _module() -> str:
    """Return the name of the running module; for a package's `__main__`, the package."""
    file = Path(sys.argv[0])
    return f"doppel_ray.{file.parent.name if file.stem == '__main__' else file.stem}"


def commit() -> str | None:
    """Return the git commit of this code, with `+changes` if the working tree differs; None outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _version(package: str) -> str | None:
    """Return a package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
