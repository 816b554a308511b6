"""`make changes`: what a working tree does to the results of another revision, both run on this machine."""

import re
import subprocess
import sys

import pytest

from tests.helpers.commands import git
from tests.helpers.pipeline import load, set_param


@pytest.mark.story
@pytest.mark.matrix
def test_a_changed_parameter_is_shown_with_what_it_did(project):
    set_param(project, "lora", r=2)
    command = [".ci/changes", sys.prefix, "main"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    # The page alone, for a job's summary; progress is on stderr.
    start = git(project, "rev-parse", "--short", "main").strip()
    assert result.stdout.startswith(f"## Changes against {start}\n")
    parts = dict(re.findall(r"^### (.+)\n\n((?:(?!###).*\n)+)", result.stdout, re.MULTILINE))
    assert parts.keys() == {"Answers to the held-out items", "Metrics", "Parameters", "Code that stages run"}
    assert "| lora.r | 4 | 2 |" in " ".join(parts["Parameters"].split(" ")).replace("  ", " ") or re.search(
        r"lora\.r\s*\|\s*4\s*\|\s*2\s*\|", parts["Parameters"]
    )
    assert "| rouge_l" in parts["Answers to the held-out items"] or "ROUGE-L" in parts["Answers to the held-out items"]
    assert "trainable_parameters" in parts["Metrics"]
    assert parts["Code that stages run"].strip() == "Nothing differs."
    before = project / f"runs/changes/{start}"
    assert load(before, "metrics/train.json") != load(project, "metrics/train.json")
    # What both share ran once.
    assert "base, taken from the cache" in result.stderr
    # The branch, its history and what is committed stay as they are.
    assert git(project, "rev-parse", "--short", "HEAD").strip() == start
    assert git(project, "diff", "--name-only", "--", "params.yaml").strip() == "params.yaml"
