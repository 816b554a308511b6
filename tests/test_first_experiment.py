"""README's first experiment as it is written, on a clone without results: run, commit, experiment, compare, chat."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.commands import dvc, git, python

pytestmark = pytest.mark.story

EVAL = "metrics/eval.json"


def tuneline(folder: Path, *words: str):
    return python(folder, "-m", "tuneline", *words)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_the_first_experiment_works_as_it_is_written(project):
    run = tuneline(project, "repro")
    assert run.returncode == 0, run.stderr[-4000:]
    numbers = re.findall(r"^stage (\d+) of 10: (\w+)", run.stdout, re.MULTILINE)
    assert [int(number) for number, _ in numbers] == list(range(1, 11))
    # Nothing of what libraries and DVC say while all is well.
    for chatter in ("is empty", "Loading weights", "> python -m", "it/s", "Running stage"):
        assert chatter not in run.stdout + run.stderr
    check_summary(run.stdout)
    first = (project / EVAL).read_bytes()
    check_nothing_is_overwritten(project, first)
    git(project, "add", "dvc.lock", "metrics")
    git(project, "commit", "-q", "-a", "-m", "First results")
    before = git(project, "rev-parse", "HEAD").strip()
    dvc(project, "exp", "run", "-n", "r2", "-S", "lora.r=2")
    assert (project / EVAL).read_bytes() != first
    # The experiment's results are held by the experiment, so the next one may take their place.
    assert "git commit" not in tuneline(project, "summary").stdout
    compared = tuneline(project, "compare", "HEAD", "r2", "--json")
    assert compared.returncode == 0, compared.stderr
    (against,) = json.loads(compared.stdout)
    assert (against["base"], against["tuned"], against["items"]) == ("HEAD", "r2", 6)
    said = tuneline(project, "chat", "--model", "rev:r2", "--prompt", "感冒怎么办？", "--max-new-tokens", "4", "--json")
    assert said.returncode == 0, said.stderr[-3000:]
    assert git(project, "rev-parse", "HEAD").strip() == before
    check_what_is_in_no_cache(project)


def check_summary(text: str) -> None:
    """It leads with the verdict, in plain text because stdout is no terminal, and names the next commands."""
    summary = text[text.index("\nresult ") :]
    assert "held-out items" in summary.splitlines()[1]
    assert summary.count("95 % interval") == 3
    assert "merged = adapter (checked: " in summary
    assert "WARNING: 100 % of the answers are cut off" in summary
    for name in ("metrics/report.html", "metrics/data.html", "tuneline chat", "dvc exp run -n r2 -S lora.r=2"):
        assert name in summary
    assert "next    git add dvc.lock metrics && git commit -am" in summary
    assert "ran 10 of 10 stages" in summary
    assert "\x1b" not in summary


def check_nothing_is_overwritten(project: Path, first: bytes) -> None:
    """An experiment on top of results that nothing holds is refused, and saying how to go back is enough to do so."""
    refused = python(project, "-m", "dvc", "exp", "run", "-n", "r2", "-S", "lora.r=2")
    assert refused.returncode != 0
    assert "are in no commit and in no experiment" in refused.stderr
    assert "set params.yaml back (lora.r: 2 to 4)" in refused.stderr
    assert (project / EVAL).read_bytes() == first
    git(project, "checkout", "params.yaml")
    # Nor does a mistake in a section that the last stage reads wait for its turn.
    mistake = python(project, "-m", "dvc", "repro")
    assert mistake.returncode == 0, mistake.stderr
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("max_delta_nll", "max_delta_nl"), encoding="utf-8")
    mistake = python(project, "-m", "dvc", "repro")
    assert "code: params.yaml: export.max_delta_nll is missing" in mistake.stderr
    assert "export.max_delta_nl is not a known key" in mistake.stderr
    assert "Running stage 'train'" not in mistake.stdout
    (project / "params.yaml").write_text(text, encoding="utf-8")
    again = tuneline(project, "repro")
    assert again.returncode == 0, again.stderr
    assert (project / EVAL).read_bytes() == first
    assert "reused" in again.stdout
    assert git(project, "status", "--porcelain", "code") == ""


def check_what_is_in_no_cache(project: Path) -> None:
    """A clone has no cache: what to do is said."""
    clone = project.parent / "clone"
    git(project, "clone", "-q", ".", str(clone))
    result = tuneline(clone, "compare", "HEAD", "HEAD~1")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "is recorded in its dvc.lock, but its content is in no cache here" in result.stderr
    assert "dvc fetch --all-commits" in result.stderr
    unknown = tuneline(clone, "compare", "nothing", "HEAD")
    assert "nothing: metrics/predictions.jsonl can't be read (" in last_line(unknown.stderr)
