"""A project's first run and first experiment, by a user and on a machine whose names are in no file by chance."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.helpers.commands import git, python
from tuneline.runtime.locks import exclusive_lock

USER, HOST = "anneliese93", "rechner-von-anneliese"
PLANT = f"""
import os, platform, socket
socket.gethostname = socket.getfqdn = lambda *_: {HOST!r}
platform.node = lambda: {HOST!r}
system, _, *rest = os.uname()
os.uname = lambda: os.uname_result((system, {HOST!r}, *rest))
"""
"""Python runs it at its start: the machine has another name."""


class Ran(NamedTuple):
    folder: Path
    """The project; read only, since all tests share it: `copied` gives one to work in."""
    stdout: str
    stderr: str


def made_once(folder: Path, make: Callable[[], subprocess.CompletedProcess]) -> Ran:
    """`make` fills the folder, `project` in it, by a command; once for all workers, and anew after a try that failed."""
    said = folder / "said.json"
    with exclusive_lock(folder.with_suffix(".lock"), "it is made", wait=True):
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            result = make()
            assert result.returncode == 0, result.stderr[-4000:]
            partial = said.with_suffix(".partial")
            partial.write_text(json.dumps([result.stdout, result.stderr]))
            partial.replace(said)
    return Ran(folder / "project", *json.loads(said.read_text()))


def copied(ran: Ran, folder: Path) -> Path:
    """A project of one's own in a new folder."""
    return Path(shutil.copytree(ran.folder, folder, symlinks=True))


def planted(root: Path) -> dict[str, str]:
    """The environment of that user on that machine; the home is below `root`."""
    home, start = root / f"home/{USER}", root / "start"
    home.mkdir(parents=True, exist_ok=True)
    start.mkdir(exist_ok=True)
    (start / "sitecustomize.py").write_text(PLANT)
    names = dict.fromkeys(("USER", "LOGNAME", "USERNAME"), USER)
    # Of the user's real home libraries would else take their settings.
    return names | {"HOME": str(home), "HF_HOME": str(home / "hf"), "HOSTNAME": HOST, "PYTHONPATH": str(start)}


def own_caches(root: Path) -> dict[str, str]:
    """No analytics, no shared state, and a scratch of its own."""
    return {
        "TUNELINE_SCRATCH": str(root / "scratch"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root / "site"),
    }


def run_first(root: Path, base: Path, make_project: Callable[[Path, Path], Path]) -> subprocess.CompletedProcess:
    """README's first command, in a project on a base that lies in the user's home."""
    environment = planted(root) | own_caches(root)
    own_base = shutil.copytree(base, root / f"home/{USER}/models/tiny")
    project = make_project(root / "project", Path(own_base))
    git(project, "config", "user.name", USER)
    git(project, "config", "user.email", f"{USER}@{HOST}")
    return python(project, "-m", "tuneline", "repro", env=environment)


def run_experiment(root: Path, first: Ran) -> subprocess.CompletedProcess:
    """README's first experiment, on the first results."""
    project = copied(first, root / "project")
    git(project, "add", "dvc.lock", "metrics")
    git(project, "commit", "-q", "-a", "-m", "First results")
    return python(project, "-m", "dvc", "exp", "run", "-n", "r2", "-S", "lora.r=2", env=own_caches(root))
