"""A real cluster, started by `ray up` over SSH on three hosts made of Linux namespaces.

A test takes half a minute to three minutes on two idle cores, most of it the start of Ray's processes. The hosts'
network has no way out of the machine.
"""

import contextlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from doppel_ray.runs.metrics_log import read_rows
from tests.conftest import REPOSITORY
from tests.integration.hosts import Host, Hosts, missing
from tests.integration.processes import eventually, title

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(reason := missing()), reason=f"no hosts out of namespaces: {reason}"),
]

PATIENCE = 900
"""Seconds after which something that takes one minute is taken to hang, on a machine that may be busy."""

PROFILE = """
export PYTHONPATH=$HOME/doppel-ray DOPPEL_RAY_COMPILE=0
# Sooner than a cluster that may be busy should: a host is lost after 15 s, and its own Ray gives up after 15 s.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3
export RAY_gcs_rpc_server_reconnect_timeout_s=15
"""

ASK = """
import sys, urllib.error, urllib.request
url, *shown = sys.argv[1:]
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}" for token in shown})
try:
    print(urllib.request.urlopen(request, timeout=60).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(error)
"""
"""Prints the status of an HTTP request, with a token if one is given."""

EPOCHS = 6
SWEEP = {
    "run.name": "mine",
    "synth.duration": 0.5,
    "encoder.width": 8,
    "train.epochs": EPOCHS,
    "train.pairs_per_epoch": 512,
    "train.batch_size": 32,
    # A host has one CPU: generator and train worker find no room on the same one.
    "train.cpus_per_worker": 0.6,
    "generators.0.num_cpus": 0.6,
    "probes.tasks": "[{kind: factors, sounds: 128}]",
    "probes.every": "last",
    "probes.cpus": 0.1,
    "tune.concurrent": 1,
    "tune.scheduler": "fifo",
    "search.pairs.delta": "{grid: [0.05, 0.25]}",
}


def write_config(hosts: Hosts, name: str, head: str, key: str = "key") -> Path:
    """Write the project's on-premises cluster file for these hosts, with this Python instead of a new one."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "scripts" / "cluster-onprem.yaml").read_text())
    config["cluster_name"] = name
    config["provider"].update(head_ip=head, worker_ips=[address for address in hosts.addresses if address != head])
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.folder / key)}
    config["setup_commands"] = [command for command in config["setup_commands"] if "auth" in command.lower()]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[commands][-1] += " --num-cpus=1 --object-store-memory=200000000"
    file = hosts.folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Three hosts, the user's machine, and on it a clone of this project, and a token."""
    folder = Path(tempfile.mkdtemp(prefix="doppel_ray_hosts_", dir="/var/tmp"))
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(REPOSITORY, folder / "clone", ignore=ignored)
    made = Hosts(folder, PROFILE)
    code, output = made.run("sh", "-c", "ray get-auth-token --generate > /dev/null", timeout=PATIENCE)
    assert code == 0, output
    yield made
    made.end()
    assert eventually(lambda: not any(host.processes() for host in made.all()), 120), "nothing is left behind"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Iterator[Path]:
    """The configuration file of a running cluster, which is stopped at the end."""
    file = write_config(hosts, "doppel-ray-test", hosts.addresses[0])
    for _ in range(3):  # a busy machine may miss the 30 s that Ray allows a node to start
        code, output = hosts.run("ray", "up", "--yes", file, timeout=PATIENCE)
        if code == 0:
            break
    assert code == 0, output
    status = ""

    def complete() -> bool:
        nonlocal status
        _, status = hosts.run("ray", "exec", file, "ray status", timeout=PATIENCE)
        return "3 local.cluster.node" in status

    assert eventually(complete, PATIENCE), status
    yield file
    code, output = hosts.run("ray", "down", "--yes", file, timeout=PATIENCE)
    assert code == 0, output
    assert eventually(lambda: not any(of_ray(host, "raylet") for host in hosts.all()), 120), "Ray ends on every host"


def of_ray(host: Host, name: str) -> list[int]:
    """Return the host's processes with this in their title."""
    return [pid for pid in host.processes() if name in title(pid)]


def token(hosts: Hosts) -> str:
    return (hosts.user.home / ".ray" / "auth_token").read_text()


def host_of(hosts: Hosts, name: str) -> str:
    """Return the address of the one host where such a process runs."""
    (found,) = [address for address, host in hosts.hosts.items() if of_ray(host, name)]
    return found


def test_client_without_token_is_refused(hosts: Hosts, cluster: Path) -> None:
    """By the dashboard and jobs API, which listen on the head's loopback only, and by the cluster's own ports."""
    head = hosts.addresses[0]

    def http(host: str, *shown: str) -> str:
        return hosts.run("python", "-c", ASK, f"http://{host}:8265/api/jobs/", *shown)[1].strip()

    assert "refused" in http(head)
    tunnel = hosts.start("ray", "dashboard", cluster)
    assert eventually(lambda: "refused" not in http("localhost"), PATIENCE)
    assert http("localhost") == "401"
    assert http("localhost", "wrong") == "403"
    assert http("localhost", token(hosts)) == "200"

    stranger = {"HOME": str(hosts.folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    owner = {"RAY_AUTH_MODE": "token"}
    join = f"import ray; ray.init('ray://{head}:10001'); print('joined')"
    submit = ("ray", "job", "submit", "--address", "http://localhost:8265", "--", "echo", "6 x 7")
    attempts = {
        "jobs": hosts.start(*submit, **stranger),
        "cluster": hosts.start("ray", "status", "--address", f"{head}:6379", **stranger),
        "client": hosts.start("python", "-c", join, **stranger),
    }
    outputs = {name: attempt.communicate(timeout=PATIENCE)[0] for name, attempt in attempts.items()}
    assert all(attempt.returncode for attempt in attempts.values()), outputs
    assert "Invalid authentication token" in outputs["jobs"]
    assert "InvalidAuthToken" in outputs["cluster"]
    assert "joined" not in outputs["client"]

    # Ray forks a server for every client; on a busy machine the fork may crash, in gRPC's threads.
    tries: list[str] = []
    while not any("joined" in output for output in tries):
        assert len(tries) < 5, tries[-1]
        tries.append(hosts.run("python", "-c", join, timeout=PATIENCE, **owner)[1])
    code, output = hosts.run(*submit, timeout=PATIENCE, **owner)
    assert code == 0, output
    assert "6 x 7" in output
    hosts.stop(tunnel)


def test_tensorboard_through_an_ssh_tunnel(hosts: Hosts, cluster: Path) -> None:
    serve = f"tensorboard --logdir {hosts.folder}"
    tunnel = hosts.start("ray", "exec", "--port-forward", 6006, cluster, serve)
    assert eventually(lambda: hosts.run("python", "-c", ASK, "http://localhost:6006")[1].strip() == "200", PATIENCE)
    hosts.stop(tunnel)


def test_unshared_folder_is_refused(hosts: Hosts, cluster: Path) -> None:
    """Every host has a /tmp of its own."""
    settings = {**SWEEP, "run.dir": "/tmp/runs"}
    arguments = [shlex.quote(str(part)) for key, value in settings.items() for part in (f"--{key}", value)]
    code, output = hosts.run(
        "ray", "submit", cluster, "doppel_ray/tune/__main__.py", "--", *arguments, timeout=PATIENCE
    )
    _, *others = hosts.addresses
    assert code != 0, output
    assert f"run.dir: /tmp/runs/mine does not exist on {', '.join(sorted(others))}; choose a --run.dir" in output


def test_node_with_other_code_is_refused(hosts: Hosts, cluster: Path) -> None:
    """One host has a comment more for a while."""
    address = hosts.addresses[1]
    file = hosts.hosts[address].home / "doppel-ray" / "doppel_ray" / "tune" / "rows.py"
    code = file.read_text()
    file.write_text(code + "# changed\n")
    _, output = hosts.run("ray", "exec", cluster, "python -m doppel_ray.tune --run.dir runs", timeout=PATIENCE)
    file.write_text(code)
    message, remedy, _ = output.partition("error: the cluster's nodes must run the same code")[2].partition(
        "`ray up` again"
    )
    assert f"{address} has doppel_ray code" in message
    assert remedy
    assert hosts.addresses[0] not in message, "a host that has the right code is not named"


def test_sweep_survives_a_lost_host(hosts: Hosts, cluster: Path) -> None:
    """`ray submit`; the host where the first trial trains, or renders, loses its network after the second epoch."""
    run = hosts.folder / "runs" / "mine"
    settings = {"run.dir": run.parent, **SWEEP}
    arguments = [shlex.quote(str(part)) for key, value in settings.items() for part in (f"--{key}", value)]
    sweep = hosts.start("ray", "submit", cluster, "doppel_ray/tune/__main__.py", "--", *arguments)

    def rows() -> list[list[int]]:
        return [[row["epoch"] for row in read_rows(trial)] for trial in sorted(run.glob("trials/0*"))]

    assert eventually(lambda: sweep.poll() is not None or (rows() and len(rows()[0]) >= 2), PATIENCE)
    assert sweep.poll() is None, sweep.communicate()[0]
    trains, renders = host_of(hosts, "RayTrainWorker"), host_of(hosts, "MapWorker(MapBatches(Generator))")
    assert trains != renders
    head, leads = hosts.addresses[0], host_of(hosts, "ray::ImplicitFunc")
    lost = trains if trains != head else renders
    hosts.unplug(lost)
    output, _ = sweep.communicate(timeout=PATIENCE)
    assert sweep.returncode == 0, output[-5000:]
    assert f"joined the Ray cluster at {head}:6379" in output
    assert rows() == [list(range(1, EPOCHS + 1))] * 2, "every epoch of both trials once"
    event = "train worker 0 failed" if lost == trains else "a generator died"
    assert ("resumes from its last checkpoint (" if lost == leads else event) in output
    assert (run / "leaderboard.csv").is_file()

    for host in hosts.hosts.values():
        assert (host.home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0, "only its owner may read it"
    secret = token(hosts).encode()
    assert not [file for file in run.rglob("*") if file.is_file() and secret in file.read_bytes()]
    for pid in (pid for host in hosts.all() for pid in host.processes()):
        with contextlib.suppress(OSError):
            assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("head", "key", "message"),
    [
        ("10.9.0.77", "key", "ssh: connect to host 10.9.0.77 port 22: No route to host"),
        ("10.9.0.2", "wrong_key", "root@10.9.0.2: Permission denied (publickey)."),
    ],
    ids=["an unreachable host", "a wrong key"],
)
def test_ray_up_names_an_unreachable_host(hosts: Hosts, head: str, key: str, message: str) -> None:
    """It retries for a quarter of an hour, since the host may be booting."""
    attempt = hosts.start("ray", "up", "--yes", write_config(hosts, f"not-{key}", head, key))
    assert attempt.stdout is not None
    end = time.monotonic() + PATIENCE
    lines = []
    for line in attempt.stdout:
        lines.append(line)
        if message in line or time.monotonic() > end:
            break
    hosts.stop(attempt)
    assert message in lines[-1], "".join(lines)
