"""The process of a command line: locales, pipes, accounts, proxies and CPU quotas."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from doppel_ray.core.process import available_cpus
from tests.conftest import REPOSITORY

PROGRAM = """
import json, os, sys
from pathlib import Path
from doppel_ray.core import cli
def main(argv):
    {body}
    return 0
cli.run(main)
"""


def run(body: str, *arguments: str | bytes, stdout: int = subprocess.PIPE, **environment: str | None) -> "Done":
    """Run a command line with this body in another environment; None removes a variable."""
    merged = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={name: value for name, value in merged.items() if value is not None},
        timeout=60,
    )


Done = subprocess.CompletedProcess[bytes]


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
    ],
)
def test_locale_without_utf8(locale: dict[str, str], tmp_path: Path) -> None:
    """File names and files are read as UTF-8, and output that the terminal cannot show is escaped."""
    (tmp_path / "δ.txt").write_text("ü", encoding="utf-8")
    body = "p = next(Path(sys.argv[1]).iterdir()); print(p.name, p.read_text(), ascii(p.name))"
    done = run(body, str(tmp_path), **locale)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(rb"'\u03b4.txt'" + b"\n")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_pipe_loses_no_result(stream: str, tmp_path: Path) -> None:
    """A reader such as `head` may leave: the command still writes its result, without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    body = f"print('x' * 100000, file=sys.{stream}, flush=True); Path(sys.argv[1]).write_text('result')"
    merged = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    command = [sys.executable, "-c", PROGRAM.format(body=body), str(tmp_path / "out")]
    done = subprocess.run(command, env=merged, timeout=60, **streams)  # type: ignore[call-overload]
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == "result"
    assert not done.stderr


def test_full_disk_behind_standard_output(tmp_path: Path) -> None:
    """The result is written, and the exit code and a line on standard error say what is missing."""
    with open("/dev/full", "wb") as full:
        done = run("print('x'); Path(sys.argv[1]).write_text('result')", str(tmp_path / "out"), stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"error: standard output cannot be written: No space left on device\n"
    assert (tmp_path / "out").read_text() == "result"


def test_closed_standard_output() -> None:
    command = f'"{sys.executable}" -c "$PROGRAM" >&-'
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PROGRAM": PROGRAM.format(body="print('x')")}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_full_disk_is_named() -> None:
    done = run("open('/dev/full', 'w').write('x' * 100000)")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"No space left on device" in done.stderr


def test_proxy_is_bypassed_on_loopback() -> None:
    body = "print(json.dumps([os.environ.get('no_proxy'), os.environ.get('NO_PROXY')]))"
    done = run(body, http_proxy="http://proxy:3128", no_proxy="intra.net", NO_PROXY=None)
    lower, upper = json.loads(done.stdout)
    assert lower == upper == "intra.net,localhost,127.0.0.1,::1,169.254.169.254"
    none = dict.fromkeys(f"{kind}_proxy" for kind in ("http", "https", "all", "grpc", "no"))
    done = run(body, **none, **{name.upper(): None for name in none})
    assert json.loads(done.stdout) == [None, None]
    assert json.loads(run(body, HTTPS_PROXY="http://proxy:3128", no_proxy="*", NO_PROXY=None).stdout) == ["*", "*"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take another user id")
def test_account_without_name_and_home() -> None:
    names = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "XDG_CACHE_HOME", "DOPPEL_RAY_CACHE"))
    program = "import getpass\nfrom doppel_ray.core import files\n" + PROGRAM.format(
        body="print(getpass.getuser(), files.cache_folder())"
    ).replace("cli.run", "os.setuid(54321); cli.run")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("uid54321 ")


CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({"cpu.max": "100000 100000"}, "0::/", 1),  # version 2, in a container
        ({"cpu.max": "max 100000"}, "0::/", CPUS),
        ({"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}, "0::/job/step", 1),
        ({"cpu.max": "20000 100000"}, "0::/", 1),  # less than one CPU
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", 1),  # version 1
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", CPUS),
        ({"cpu/job/cpu.cfs_quota_us": "50000", "cpu/job/cpu.cfs_period_us": "50000"}, "4:cpu:/job\n2:memory:/x", 1),
        ({"cpu.max": "garbage"}, "0::/", CPUS),
        ({}, "", CPUS),
    ],
)
def test_cpu_quota(files: dict[str, str], groups: str, expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    membership = tmp_path / "membership"
    membership.write_text(groups)
    assert available_cpus(tmp_path, membership) == expected


def test_processes_without_control_groups(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "none", tmp_path / "none") == CPUS
