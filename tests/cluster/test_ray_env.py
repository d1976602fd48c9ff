"""The environment for Ray: a cluster is looked for only when asked, and a local Ray stays on loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doppel_ray.cluster import ray_env
from doppel_ray.core.errors import ConfigError

NO_CONNECTION = """
import sys
def refuse(event, arguments):
    if event == "socket.connect":
        raise AssertionError(f"connects to {arguments[1]}")
sys.addaudithook(refuse)
"""


@pytest.fixture
def recorded_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a listening socket, recorded where `ray start` records a cluster's; no token."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        yield address


@pytest.mark.usefixtures("recorded_address")
@pytest.mark.parametrize("module", ["cluster.ray_env", "tune.__main__", "train.__main__"])
def test_import_opens_no_connection(module: str) -> None:
    code = f"{NO_CONNECTION}\nimport doppel_ray.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_running_cluster_is_joined(recorded_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_env.address() == recorded_address
    assert ray_env.variables() == {}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert ray_env.variables() == {"RAY_AUTH_MODE": "token"}


def test_stopped_cluster_is_not_joined(recorded_address: str) -> None:
    file = Path(os.environ["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped = f"127.0.0.1:{server.getsockname()[1]}"
    file.write_text(stopped)
    assert ray_env.address() is None
    assert ray_env.variables() == ray_env.ALONE


@pytest.mark.usefixtures("recorded_address")
def test_ray_address_local_starts_a_ray_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert ray_env.variables() == ray_env.ALONE


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_temporary_folder_too_long_for_sockets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sets long ones. Refused by name, and nothing is made there."""
    for other in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(other, raising=False)
    folder = tmp_path / ("x" * 90)
    monkeypatch.setenv(name, str(folder))
    with pytest.raises(ConfigError, match=f"^{name} is .* set RAY_TMPDIR to a short folder"):
        ray_env.check_temporary_folder()
    assert not folder.exists()


def test_temporary_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", "t")
    with pytest.raises(ConfigError, match=r"^RAY_TMPDIR is 't', where Ray cannot write"):
        ray_env.check_temporary_folder()


def test_default_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    ray_env.check_temporary_folder()


def test_start_timeout_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """And decides how many attempts `train.start_timeout` is."""
    attempts = "from doppel_ray.cluster import ray_env; print(ray_env.start_attempts(1800.0))"
    for given, expected in ({}, "15"), ({"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600"}, "3"):
        monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)
        done = subprocess.run([sys.executable, "-c", attempts], env={**os.environ, **given}, capture_output=True)
        assert done.stdout.decode().strip() == expected, done.stderr
