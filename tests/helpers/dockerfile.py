"""The steps of a Dockerfile without a daemon: every RUN in a copy-on-write view of this machine's own root.

FROM is this machine with a given Python as `python3`, so what is shown is that the steps work, not which Debian they find.
Needs root and overlayfs. https://docs.docker.com/reference/dockerfile/
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PASSED = ("PIP_", "UV_", "SSL_", "REQUESTS_")
"""Beginnings of variables that a build gets as arguments: mirrors and certificates."""


DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""Minor numbers of Linux's memory devices."""


class Step(NamedTuple):
    """An instruction, its value on one line."""

    word: str
    value: str


def steps(text: str) -> list[Step]:
    """Instructions of a Dockerfile, without heredocs."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines()]


def stages(text: str) -> list[list[Step]]:
    """Steps of each stage, each beginning with its FROM; arguments before the first are left out."""
    found: list[list[Step]] = []
    for step in steps(text):
        if step.word == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


def in_context(name: str, ignored: list[str]) -> bool:
    """Whether a file of the project goes to the daemon, by the lines of .dockerignore; the last that fits decides."""
    here = PurePosixPath(name)
    kept = True
    for line in ignored:
        pattern = line.removeprefix("!")
        if any(fits(place.as_posix(), pattern) for place in (here, *here.parents[:-1])):
            kept = line.startswith("!")
    return kept


def fits(name: str, pattern: str) -> bool:
    """`**/` is any folders, or none; a star stays within its folder."""
    if pattern.startswith("**/"):
        return fnmatchcase(name.rpartition("/")[2], pattern[3:])
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def ignored(root: Path) -> list[str]:
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def copy_context(root: Path, target: Path) -> None:
    """What git tracks of the project, less what .dockerignore leaves out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    patterns = ignored(root)
    for name in filter(None, listed.split("\0")):
        if in_context(name, patterns) and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


class Machine:
    """A stage's root: this machine's, with what the stage writes beside it in a folder of its own."""

    def __init__(self, folder: Path, arguments: Mapping[str, str]) -> None:
        self.upper, self.root = folder / "upper", folder / "root"
        for path in (self.upper, folder / "work", self.root):
            path.mkdir(parents=True)
        options = f"lowerdir=/,upperdir={self.upper},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", str(self.root / "proc")], check=True)
        # Devices of its own: whoever empties the folder later can't reach this machine's.
        for name, minor in DEVICES.items():
            (self.root / "dev" / name).unlink(missing_ok=True)
            os.mknod(self.root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            (self.root / "dev" / name).chmod(0o666)
        (self.root / "dev/shm").mkdir(mode=0o1777, exist_ok=True)
        base = Path(sys.base_prefix) / "bin"
        # This Python may lie in root's home; a user of the image has to reach it.
        for place in (base, *base.parents):
            if len(place.parts) > 1 and not place.stat().st_mode & 0o001:
                (self.root / place.relative_to("/")).chmod(place.stat().st_mode | 0o055)
        (self.root / "tmp").chmod(0o1777)
        self.forget_people()
        given = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
        self.arguments = {**given, **arguments}
        self.env = {"PATH": f"/usr/local/sbin:/usr/local/bin:{base}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.place, self.user = "/", "0:0"
        self.entry: list[str] = []

    def forget_people(self) -> None:
        """Users of this machine, which no base image has."""
        for name in ("passwd", "group"):
            path = self.root / "etc" / name
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if not 1000 <= int(line.split(":")[2]) < 65534))

    def close(self) -> None:
        subprocess.run(["umount", "--recursive", "--lazy", str(self.root)], check=True)

    def inside(self, path: str) -> Path:
        return self.root / str(PurePosixPath(self.place) / path).lstrip("/")

    def run(self, command: list[str], **more: str) -> subprocess.CompletedProcess:
        """In the stage's folder and environment, as its user."""
        user, group = self.user.split(":")
        become = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        env = {**self.env, **more}
        words = ["chroot", str(self.root), "env", "-i", *(f"{name}={value}" for name, value in env.items())]
        words += ["setpriv", *become, "sh", "-c", 'cd "$0" && exec "$@"', self.place, *command]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def run_checked(self, command: list[str], **more: str) -> str:
        """What it printed; AssertionError when it failed."""
        result = self.run(command, **more)
        assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result.stdout

    def expand(self, text: str) -> str:
        """Variables of ENV and ARG, as COPY, ENV and WORKDIR take them."""
        known = {**self.arguments, **self.env}
        return re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), text)


@contextmanager
def image(root: Path, folder: Path, arguments: Mapping[str, str]) -> Iterator[Machine]:
    """The last stage's machine, once every step of every stage has run.

    `root` is the project with its Dockerfile and .dockerignore. Raises AssertionError with what a step printed that failed, and
    ValueError for an instruction that is not known.
    """
    context = folder / "context"
    copy_context(root, context)
    made: dict[str, Machine] = {}
    try:
        for number, stage in enumerate(stages((root / "Dockerfile").read_text(encoding="utf-8"))):
            name = stage[0].value.partition(" AS ")[2] or str(number)
            machine = made[name] = Machine(folder / name, arguments)
            for step in stage[1:]:
                if step.word == "RUN":
                    machine.run_checked(["sh", "-c", step.value], **machine.arguments)
                else:
                    take(step, machine, context, made)
        yield machine
    finally:
        for one in made.values():
            one.close()


def take(step: Step, machine: Machine, context: Path, made: Mapping[str, Machine]) -> None:
    """An instruction that runs nothing."""
    value = machine.expand(step.value)
    if step.word == "ENV":
        machine.env |= dict(word.split("=", 1) for word in shlex.split(value))
    elif step.word == "ARG":
        name, _, default = value.partition("=")
        machine.arguments.setdefault(name, default)
    elif step.word == "WORKDIR":
        machine.place = value
        machine.inside(".").mkdir(parents=True, exist_ok=True)
    elif step.word == "COPY":
        copy(shlex.split(value), machine, context, made)
    elif step.word == "USER":
        machine.user = value
    elif step.word == "ENTRYPOINT":
        machine.entry = shlex.split(value.translate(str.maketrans('[],"', "   '")).replace("'", ""))
    elif step.word not in ("LABEL", "CMD"):
        raise ValueError(f"{step.word} in a Dockerfile, expected an instruction that this helper knows")


def copy(words: list[str], machine: Machine, context: Path, made: Mapping[str, Machine]) -> None:
    options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    start = made[options["from"]].root if "from" in options else context
    place = machine.inside(target)
    if target.endswith("/") or len(sources) > 1:
        place.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    for source in sources:
        path = start / source.lstrip("/")
        # A folder's content goes into the target, a file becomes the target.
        words = ["cp", "-a", f"{path}/." if path.is_dir() else str(path), str(place)]
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        subprocess.run(words, check=True)
    if "from" not in options:
        # Of the context everything is root's.
        subprocess.run(["chown", "-R", "0:0", str(place)], check=True)
    if owner := options.get("chown"):
        subprocess.run(
            ["chroot", str(machine.root), "chown", "-R", owner, str(PurePosixPath(machine.place) / target)], check=True
        )
