"""Prepare the process of a command line for any shell, account and machine, and count its CPUs."""

import contextlib
import getpass
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIRECT = ("localhost", "127.0.0.1", "::1", "169.254.169.254")
"""Hosts reached without a proxy: this machine, where Ray's servers listen, and a cloud machine's metadata."""
CGROUPS = Path("/sys/fs/cgroup")
"""Mount point of the control groups."""


class Output(io.FileIO):
    """A standard stream that never raises: after a failed write the rest of the output is dropped.

    A closed pipe, as of `| head`, or a full disk must not lose the results that a command is about to write.
    """

    fault: OSError | None = None
    """Error of the first failed write."""

    def write(self, data: Any) -> int:
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return len(data)


def prepare() -> tuple[Output, ...]:
    """Set up this process; return standard output and standard error. Restarts Python once if the locale is not UTF-8.

    Raises nothing for an account without a name, a closed stream or a terminal without UTF-8.
    """
    _ensure_utf8()
    ensure_user_name()
    bypass_proxies()
    return _stream("stdout", 1), _stream("stderr", 2)


def _ensure_utf8() -> None:
    """Restart Python in UTF-8 mode, which decides how it decodes file names and files, unless it is in that mode."""
    os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _stream(name: str, descriptor: int) -> Output:
    """Replace a standard stream of `sys` by one that writes what its encoding lacks as escapes; return its raw file."""
    old = getattr(sys, name)
    if old is None:  # closed by the shell: `>&-`
        descriptor = os.open(os.devnull, os.O_WRONLY)
    else:
        old.flush()
    raw = Output(descriptor, "w", closefd=False)
    encoding, by_line = ("utf-8", False) if old is None else (old.encoding, old.line_buffering or old.write_through)
    new = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line)
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)
    return raw


def ensure_user_name() -> None:
    """Set LOGNAME if the account has no name, as in containers: PyTorch's compiler and Ray ask for one."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def bypass_proxies() -> None:
    """Add `DIRECT` to the hosts that are reached without the proxy of http_proxy and its kin, if there is one."""
    if not any(os.environ.get(name) for proxy in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
               for name in (proxy, proxy.upper())):  # fmt: skip
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in DIRECT if host not in hosts]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)


def home() -> Path:
    """Return the user's home folder; without one (no HOME and no account) a path `~`, which does not exist."""
    return Path(os.path.expanduser("~"))


def available_cpus(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of CPUs that this process may use: its affinity, or the quota of a control group if smaller.

    Args:
        cgroups: mount point of the control groups, of version 1 or 2.
        membership: file that lists this process's groups.

    Returns:
        A whole number as Ray counts, rounded down, and at least 1.
    """
    quotas = _quotas(cgroups, membership)
    return max(1, int(min([float(len(os.sched_getaffinity(0))), *quotas])))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the CPU quota of each control group around this process, in CPUs."""
    for folder in _groups(cgroups, membership):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if (limits := folder / "cpu.max").exists():  # version 2: "QUOTA PERIOD", or "max PERIOD"
                quota, period = limits.read_text(encoding="utf-8").split()
            else:
                quota, period = (
                    (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
                )
            if quota != "max" and (cpus := float(quota) / float(period)) > 0:  # version 1: -1 is no limit
                yield cpus


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of those above them; some may not exist."""
    paths = {"/"}  # in a container, the process's own group is mounted at the top
    with contextlib.suppress(OSError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                paths |= {path, *map(str, Path(path).parents)}
    for path in sorted(paths):
        for mount in (cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct"):
            yield mount / path.lstrip("/")
