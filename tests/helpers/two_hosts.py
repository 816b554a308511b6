"""Two hosts on one machine: network namespaces joined by a cable, an OpenSSH server in each, one file system."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ADDRESSES = {"alpha": "10.77.0.1", "beta": "10.77.0.2"}
PROGRAMS = ("ip", "unshare", "sshd", "ssh-keygen", "pdsh")
CABLE = "cable0"
"""Its network interface, called the same on both."""


def missing() -> str | None:
    """Why this machine cannot pretend to be two."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: apt install iproute2 util-linux openssh-server pdsh"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "needs root, to make network namespaces"
    return None


def search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Hosts(NamedTuple):
    folder: Path
    names: dict[str, str]
    """Network namespace by host."""

    def run(self, host: str, *command: str, cwd: Path, env: dict[str, str], log: Path) -> subprocess.Popen:
        """A command on a host; where it says `ssh`, the keys and names of these hosts are known."""
        path = f"{self.folder / 'bin'}:{search_path()}"
        inside = ["ip", "netns", "exec", self.names[host], *command]
        with log.open("a") as file:
            return subprocess.Popen(
                inside, cwd=cwd, env=os.environ | {"PATH": path} | env, stdout=file, stderr=file, start_new_session=True
            )

    def processes(self, host: str) -> list[int]:
        """Pids of what runs on a host, its OpenSSH server aside."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.names[host]], capture_output=True, text=True, check=True
        ).stdout.split()
        servers = (self.folder / f"{host}.pid").read_text().split()
        return [int(pid) for pid in found if pid not in servers]

    def cut(self, host: str) -> None:
        """Pull the cable."""
        self._set(host, "down")

    def mend(self, host: str) -> None:
        """Put the cable back."""
        self._set(host, "up")

    def _set(self, host: str, state: str) -> None:
        subprocess.run(["ip", "-n", self.names[host], "link", "set", CABLE, state], check=True)


@contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Both hosts up, and gone afterwards with all that runs on them."""
    names = {host: f"{host}-{os.getpid()}" for host in ADDRESSES}
    hosts = Hosts(folder, names)
    _write_keys(folder)
    try:
        for host in names.values():
            _ip("netns", "add", host)
        ends = {host: f"{host[0]}{os.getpid()}" for host in names}
        _ip("link", "add", ends["alpha"], "type", "veth", "peer", "name", ends["beta"])
        for host, space in names.items():
            _ip("link", "set", ends[host], "netns", space, "name", CABLE)
            for arguments in (
                ("addr", "add", f"{ADDRESSES[host]}/24", "dev", CABLE),
                ("link", "set", CABLE, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", space, *arguments)
            _serve(folder, host, space)
        yield hosts
    finally:
        for host, space in names.items():
            pids = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
            subprocess.run(["kill", "-9", *pids.split()], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
            (folder / f"{host}.pid").unlink(missing_ok=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _write_keys(folder: Path) -> None:
    """A key for the servers and one for the user, and an `ssh` that takes them."""
    folder.mkdir(parents=True)
    for name in ("server", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    known = "".join(f"Host {host}\n  HostName {address}\n" for host, address in ADDRESSES.items())
    options = {
        "IdentityFile": folder / "user", "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null",
        "BatchMode": "yes", "LogLevel": "ERROR",
    }  # fmt: skip
    (folder / "config").write_text(known + "Host *\n" + "".join(f"  {key} {value}\n" for key, value in options.items()))
    (folder / "bin").mkdir()
    ssh = folder / "bin/ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n')
    ssh.chmod(0o755)


def _serve(folder: Path, host: str, space: str) -> None:
    """Start a host's OpenSSH server, and wait until it listens."""
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "HostKey": folder / "server", "AuthorizedKeysFile": folder / "authorized", "PidFile": folder / f"{host}.pid",
        "ListenAddress": ADDRESSES[host], "StrictModes": "no", "UsePAM": "no", "PermitRootLogin": "prohibit-password",
        "MaxStartups": "50",
    }  # fmt: skip
    (folder / f"{host}.conf").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    server = shutil.which("sshd", path=search_path())
    subprocess.run(["ip", "netns", "exec", space, str(server), "-f", str(folder / f"{host}.conf")], check=True)
    deadline = time.monotonic() + 10
    while not (folder / f"{host}.pid").exists():
        assert time.monotonic() < deadline, f"the OpenSSH server of {host} does not start"
        time.sleep(0.1)
