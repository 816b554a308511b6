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
    assert result.stdout.startswith(f"# Changes against {start}\n")
    results = re.search(r"Its results on this machine are `(\w+)`", result.stdout)[1]
    parts = dict(re.findall(r"^## (.+)\n\n((?:(?!## ).*\n)+)", result.stdout, re.MULTILINE))
    compared = f"workspace against {results}: 6 items"
    assert parts.keys() == {compared, "Metrics", "Parameters", "Code that stages run"}
    assert "| ROUGE-L | " in parts[compared]
    assert re.search(r"trainable_parameters +\|", parts["Metrics"])
    assert re.search(r"lora\.r +\| 4 +\| 2 +\|", parts["Parameters"])
    assert parts["Code that stages run"].strip() == "Nothing differs."
    before = project / f"runs/changes/{start}"
    assert load(before, "metrics/train.json") != load(project, "metrics/train.json")
    # What both share ran once.
    assert "base, taken from the cache" in result.stderr
    # The branch, its history and what is committed stay as they are.
    assert git(project, "rev-parse", "--short", "HEAD").strip() == start
    assert git(project, "diff", "--name-only", "--", "params.yaml").strip() == "params.yaml"
