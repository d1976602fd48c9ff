"""Hosts on one machine, for a test cluster: network namespaces on a bridge without a way out.

Each host has an address, processes, `/run`, `/tmp` and a home of its own, and an SSH server; it shares the rest of the
file system. All of it ends with one process, and leaves nothing behind but its folder.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

NETWORK = "10.9.0"
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")

OWN_FILES = """
mount -t tmpfs tmpfs /run
mkdir /run/sshd /run/upper /run/work
mount -t overlay overlay -o lowerdir=/tmp,upperdir=/run/upper,workdir=/run/work /tmp
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
"""
"""Gives a host its own /run and /tmp, and an empty /tmp/ray, where Ray looks for other Rays."""

START = f"""
echo made; read go                    # once it has its network
ip link set lo up
mount --bind $1/passwd /etc/passwd    # where SSH and the shell look up the home folder
{OWN_FILES}
shift; exec "$@"
"""
NAMESPACES = ["--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]


def missing() -> str | None:
    """Return why hosts cannot be made here, or None."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"no {', '.join(lacking)}: apt-get install iproute2 openssh-client openssh-server rsync util-linux"
    tried = subprocess.run(["unshare", *NAMESPACES, "sh", "-ec", OWN_FILES], capture_output=True, text=True)
    return f"this container may not make namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """One host.

    Args:
        folder: its home.
        command: its first process, with which it ends.
    """

    def __init__(self, folder: Path, *command: str) -> None:
        self.home = folder
        self.home.mkdir(parents=True)
        (self.home / "passwd").write_text(
            f"root:x:0:0:root:{self.home}:/bin/bash\nsshd:x:103:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "sh", "-ec", START, "sh", self.home, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"made\n"
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.pid = int(children)
        """Of its first process, whose namespaces are the host's."""
        self.network = os.readlink(f"/proc/{self.pid}/ns/net")

    def boot(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def ip(self, *arguments: object) -> None:
        """Run `ip` on this host."""
        subprocess.run(["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", *map(str, arguments)], check=True)

    def processes(self) -> list[int]:
        """Return its processes, by the machine's process ids."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns" / "net") == self.network:
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Hosts:
    """Three hosts with SSH servers, and the user's machine.

    Args:
        folder: empty and not in /tmp; all hosts share it.
        profile: lines of each host's `.bashrc`.
    """

    def __init__(self, folder: Path, profile: str) -> None:
        self.folder = folder
        for key in ("key", "host_key", "wrong_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "sshd_config").write_text(
            f"HostKey {folder / 'host_key'}\nAuthorizedKeysFile {folder / 'key.pub'}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        )
        self.user = Host(folder / "user", "sleep", "infinity")
        self.user.ip("link", "add", "lan", "type", "bridge")
        self.user.ip("address", "add", f"{NETWORK}.1/24", "dev", "lan")
        self.user.ip("link", "set", "lan", "up")
        self.hosts: dict[str, Host] = {}
        """By address."""
        for number in (2, 3, 4):
            host = Host(folder / f"host{number}", "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config"))
            (host.home / ".bashrc").write_text(profile)
            (host.home / "venv").symlink_to(sys.prefix)
            host.ip("link", "add", "eth0", "type", "veth", "peer", "name", f"to{number}")
            host.ip("link", "set", f"to{number}", "netns", self.user.pid)
            self.user.ip("link", "set", f"to{number}", "master", "lan", "up")
            host.ip("address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
            host.ip("route", "add", "default", "via", f"{NETWORK}.1")  # which forwards nothing
            self.hosts[f"{NETWORK}.{number}"] = host
        for host in self.all():
            host.boot()

    def all(self) -> list[Host]:
        return [self.user, *self.hosts.values()]

    @property
    def addresses(self) -> list[str]:
        return list(self.hosts)

    def start(self, *command: object, **environment: str) -> subprocess.Popen[str]:
        """Start a command on the user's machine, in the clone."""
        clean = {
            "HOME": str(self.user.home),
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "TERM": "dumb",
        } | environment
        entered = ["nsenter", "--target", str(self.user.pid), "--net", "--pid", "--mount"]
        clone = self.folder / "clone"
        return subprocess.Popen(
            [*entered, f"--wdns={clone}", "env", "-i", *(f"{k}={v}" for k, v in clean.items()), *map(str, command)],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Kill a command and what it has started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def run(self, *command: object, timeout: float = 300, **environment: str) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        process = self.start(*command, **environment)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def unplug(self, address: str) -> None:
        """Cut the link between a host and all others."""
        self.user.ip("link", "set", f"to{address.rpartition('.')[2]}", "down")

    def end(self) -> None:
        for host in self.all():
            host.end()
