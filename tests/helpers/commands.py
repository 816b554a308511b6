"""Commands as a user runs them: git, DVC and this Python, and a training process without a launcher."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port


def git_init(folder: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "somebody@example.org")
    git(folder, "config", "user.name", "Somebody")
    git(folder, "config", "commit.gpgsign", "false")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def python(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run this Python in a folder; its bin directory is first on PATH, so `python` in dvc.yaml is the same."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": ""} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=env, **options
    )


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    result = python(folder, "-m", "dvc", *arguments)
    assert result.returncode == 0, f"dvc {' '.join(arguments)}\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}"
    return result


def experiments_command(*variables: str) -> list[str]:
    """What `make exp`, with variables such as SORT=rouge_l, gives to DVC."""
    # Where the tests themselves run under make, it would tell of folders, too.
    make = ["make", "--no-print-directory", "-n", "exp", *variables]
    planned = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    _, *words = shlex.split(planned.stdout.splitlines()[-1])
    return words


def one_rank() -> dict[str, str]:
    """The environment of a training process that no launcher started: one rank, on a free port."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    return alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT)}
