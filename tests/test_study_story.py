"""Twelve runs of a tiny recipe, killed once in the middle and begun again: none is lost, and none is made twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import dvc, git, python
from tests.helpers.pipeline import load, set_param

pytestmark = pytest.mark.matrix
STUDY = ("study", "--name", "tiny", "--seeds", "17", "18", "19", "--shares", "0.5", "1", "-S", "lora.r=2,4")


def begin(project: Path, log: Path) -> subprocess.Popen:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": ""}
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tuneline", *STUDY], cwd=project, env=environment, stdout=file, stderr=file
        )


def test_twelve_runs_are_killed_in_the_middle_and_finished(project):
    set_param(project, "train", max_steps=2, save_steps=2)
    set_param(project, "evaluate", max_new_tokens=4)
    dvc(project, "repro", "evaluate")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Run")
    planned = python(project, "-m", "tuneline", *STUDY, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count(" of the rows, ") == 12
    assert "as the stages took when they last ran" in planned.stdout
    log = project.parent / "study.log"
    process = begin(project, log)
    deadline = time.monotonic() + 1200
    while log.read_text().count(" took ") < 5 or log.read_text().count("begins") < 6:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    time.sleep(5)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    before = experiments(project)
    done = len(before)
    assert 5 <= done < 12
    again = python(project, "-m", "tuneline", *STUDY)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("study: begins") == 12 - done
    after = experiments(project)
    assert len(after) == 12
    assert before.items() <= after.items()
    figures = load(project, "metrics/study/tiny.json")
    assert figures["runs"] == 12
    assert {row["level"]["seeds"] for row in figures["comparisons"]} == {3}
    assert len(figures["curves"]) == 2
    assert "<svg" in (project / "metrics/study/tiny.html").read_text(encoding="utf-8")
    assert not list((project / ".dvc/tmp/exps").glob("standalone/tmp*/params.yaml"))
    # What is finished is found, and nothing begins.
    third = python(project, "-m", "tuneline", *STUDY, "--budget", "1m")
    assert third.returncode == 0, third.stderr
    assert "study: begins" not in third.stdout
    rows = {json.loads(line)["id"] for line in read_heldout(project)}
    assert len(rows) == 6


def experiments(project: Path) -> dict[str, str]:
    """{name: revision} of the study's."""
    listed = git(project, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    found = (re.fullmatch(r"(\w+) refs/exps/.*/(tiny-\w+)", line) for line in listed)
    return {match[2]: match[1] for match in found if match}


def read_heldout(project: Path) -> list[str]:
    return (project / "data/processed/heldout.jsonl").read_text(encoding="utf-8").splitlines()
