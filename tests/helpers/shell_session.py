"""A reader's terminal in a copy of the project: commands in order, servers that stay, and the exit code of each."""

import os
import signal
import subprocess
import sys
import time
import venv
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO

import httpx

from tests.helpers.ports import free_port

PORTS = {"serve": 8000, "demo": 7860, "review": 7862}
"""Servers' own ports. A test has others, since somebody else may listen there."""
AS_TUNELINE = """#!/bin/sh
case "$1" in
  serve) set -- "$@" --port {serve};;
  demo) set -- "$@" --port {demo};;
  review) case "$*" in *--judge*) ;; *) set -- "$@" --port {review};; esac;;
esac
exec python -m tuneline "$@"
"""
SESSION = """set -euo pipefail
if [ -e {state} ]; then . {state}; fi
trap 'code=$?; (export -p; printf "cd %q\\n" "$PWD") > {state}; exit $code' EXIT
{command}
"""
"""What a command leaves for the next: variables and the folder."""
TYPED = "感冒怎么办？\n"
"""What a reader says to a chat, and then ends it."""
PATIENCE = 1800
"""Seconds for a server to listen and for a command to end; a busy machine is slow."""


def environment_of(project: Path, ports: dict[str, int]) -> None:
    """A `.venv` that has all of this Python's, and is finished as `make setup` leaves it."""
    folder = project / ".venv"
    venv.create(folder)
    packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    # A link, since a file that names the other folder would not be followed from a third environment.
    (folder / packages).rmdir()
    (folder / packages).symlink_to(Path(sys.prefix) / packages)
    for program in Path(sys.executable).parent.iterdir():
        if program.name not in ("tuneline", "activate") and not (folder / "bin" / program.name).exists():
            (folder / "bin" / program.name).symlink_to(program)
    shim = folder / "bin/tuneline"
    shim.write_text(AS_TUNELINE.format(**ports))
    shim.chmod(0o755)
    for stamp in (".libraries", ".ready"):
        (folder / stamp).touch()


class Terminal:
    """Bash in a project whose `.venv` is made. Close it: servers end as by Ctrl-C, which must be a clean end."""

    def __init__(self, project: Path, home: Path, activated: bool = True, **more: str) -> None:
        self.project, self.home = project, home
        home.mkdir(parents=True, exist_ok=True)
        self.ports = {name: free_port() for name in PORTS}
        environment_of(project, self.ports)
        self.servers: dict[str, tuple[str, subprocess.Popen]] = {}
        own = Path(sys.prefix) / "bin" if sys.prefix != sys.base_prefix else None
        here = [folder for folder in os.environ["PATH"].split(":") if Path(folder) != own]
        path = ":".join([*[str(project / ".venv/bin")] * activated, *here])
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self.environment |= {"PATH": path, "PYTHONPATH": "", "HOME": str(home), "EDITOR": "true", **more}

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for name in self.servers.copy():
                stack.callback(self.end, name)

    def run(self, command: str) -> str:
        """What a command prints. AssertionError when it fails."""
        for name, port in PORTS.items():
            for host in ("127.0.0.1", "localhost"):
                command = command.replace(f"{host}:{port}", f"127.0.0.1:{self.ports[name]}")
        server = next((name for name in PORTS if serves(command, name)), None)
        if server:
            return self.serve(server, command)
        ran = self.start(command, subprocess.PIPE, subprocess.PIPE)
        try:
            said, _ = ran.communicate(TYPED, PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(ran.pid, signal.SIGKILL)
            raise AssertionError(f"no end after {PATIENCE} s of: {command}\n{ran.communicate()[0][-4000:]}") from None
        assert ran.returncode == 0, f"exit code {ran.returncode} of: {command}\n{said[-4000:]}"
        return said

    def python(self, text: str) -> str:
        """What a program prints; it is one of a reader's, in the environment of the project."""
        file = self.home / "program.py"
        for name, port in PORTS.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.ports[name]}")
        file.write_text(text, encoding="utf-8")
        return self.run(f"python {file}")

    def start(self, command: str, stdin: int, stdout: IO[str] | int) -> subprocess.Popen:
        """Bash with what the command before left, in a group of processes of its own."""
        session = SESSION.format(state=self.home / "state", command=command)
        # Where the tests run in the background, Ctrl-C is ignored, and would be here, too.
        return subprocess.Popen(
            ["env", "--default-signal=INT", "bash", "-c", session], cwd=self.project, env=self.environment, text=True,
            stdin=stdin, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def serve(self, name: str, command: str) -> str:
        """Start a server and wait until it answers; the one before it on this port is ended."""
        if name in self.servers:
            self.end(name)
        log = self.home / f"{name}.log"
        with log.open("w") as file:
            process = self.start(command, subprocess.DEVNULL, file)
        self.servers[name] = (command, process)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert process.poll() is None, f"{command} ended\n{log.read_text()[-4000:]}"
            try:
                httpx.get(f"http://127.0.0.1:{self.ports[name]}/", timeout=PATIENCE, trust_env=False)
                return log.read_text()
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(f"{command} does not answer\n{log.read_text()[-4000:]}")

    def end(self, name: str) -> None:
        command, process = self.servers.pop(name)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(PATIENCE)
        said = (self.home / f"{name}.log").read_text()
        assert code in (0, 130, -signal.SIGINT), f"exit code {code} of: {command}\n{said[-4000:]}"
        assert "Traceback" not in said, said[-4000:]


def serves(command: str, name: str) -> bool:
    """Whether a command is a server of that name: it runs until it is ended."""
    words = command.split("#")[0].split()
    called = any(program in ("tuneline", "make") and word == name for program, word in pairwise(words))
    return called and not {"--judge", "--help"} & set(words)
