"""README's first experiment as it is written, on a clone without results: run, commit, experiment, compare, chat."""

import json
import re
from pathlib import Path

import pytest
import yaml
from rich.cells import cell_len

from tests.helpers.commands import git, python
from tests.helpers.first_run import copied, own_caches
from tests.helpers.terminal import shown

pytestmark = pytest.mark.story

EVAL = "metrics/eval.json"


def tuneline(folder: Path, *words: str):
    return python(folder, "-m", "tuneline", *words)


def stage_names_of(folder: Path) -> list[str]:
    return list(yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_the_first_run_says_what_it_made_and_what_comes_next(first_run):
    numbers = re.findall(r"^stage (\d+) of (\d+): \w+", first_run.stdout, re.MULTILINE)
    assert [int(number) for number, _ in numbers] == list(range(1, 1 + int(numbers[0][1])))
    # Nothing of what libraries and DVC say while all is well.
    for chatter in ("' is empty", "Loading weights", "> python -m", "it/s", "Running stage"):
        assert chatter not in first_run.stdout + first_run.stderr
    # Stdout and stderr are pipes.
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", first_run.stdout + first_run.stderr)
    lines = first_run.stdout.partition("\nresult ")[0].splitlines() + first_run.stderr.splitlines()
    speakers = "|".join(
        [*stage_names_of(first_run.folder), "stage [0-9]+ of [0-9]+", "loading weights", "writing weights"]
    )
    assert [line for line in lines if line and not re.match(rf"({speakers}): ", line)] == []
    check_summary(first_run.stdout, len(numbers))


def test_the_first_experiment_works_as_it_is_written(first_run, experiment, tmp_path, monkeypatch):
    for name, value in own_caches(tmp_path).items():
        monkeypatch.setenv(name, value)
    project = copied(experiment, tmp_path / "project")
    assert (project / EVAL).read_bytes() != (first_run.folder / EVAL).read_bytes()
    # The experiment's results are held by the experiment, so the next one may take their place.
    assert "git commit" not in tuneline(project, "summary").stdout
    compared = tuneline(project, "compare", "HEAD", "r2", "--json")
    assert compared.returncode == 0, compared.stderr
    (against,) = json.loads(compared.stdout)
    assert (against["base"], against["tuned"], against["items"]) == ("HEAD", "r2", 6)
    said = tuneline(project, "chat", "--model", "rev:r2", "--prompt", "感冒怎么办？", "--max-new-tokens", "4", "--json")
    assert said.returncode == 0, said.stderr[-3000:]
    assert git(project, "log", "--format=%s").splitlines() == ["First results", "Start"]
    check_what_is_in_no_cache(project)


def test_a_run_with_nothing_to_do_fits_the_terminal(rerun):
    result = shown(rerun, 60, "-m", "tuneline", "repro", env={"PYTHONPATH": ""})
    assert result.status == 0, result.raw
    assert result.lines[0].startswith("10 stages unchanged: code, fetch, base")
    assert max(map(cell_len, result.lines)) <= 60
    assert any(line.startswith("╭") and " tuneline " in line for line in result.lines)
    words = " ".join(" ".join(line.strip("│ ") for line in result.lines).split())
    assert "nothing had changed, all 10 stages stay as they were" in words
    assert "Collecting files" not in words


def check_summary(text: str, stages: int) -> None:
    """It leads with the verdict, in plain text because stdout is no terminal, and names the next commands."""
    summary = text[text.index("\nresult ") :]
    assert "not usable yet" in summary.splitlines()[1], "the report's first sentence"
    assert "held-out items" in summary.splitlines()[2]
    assert summary.count("95 % interval") == 3
    assert "merged = adapter (checked: " in summary
    assert "WARNING: 100 % of the answers are cut off" in summary
    for name in ("metrics/report.html", "metrics/data.html", "tuneline chat", "dvc exp run -n r2 -S lora.r=2"):
        assert name in summary
    assert "next    git add dvc.lock metrics && git commit -am" in summary
    assert f"ran {stages} of {stages} stages" in summary
    assert "\x1b" not in summary


def test_nothing_is_overwritten(rerun):
    """An experiment on top of results that nothing holds is refused, and saying how to go back is enough to do so."""
    first = (rerun / EVAL).read_bytes()
    refused = python(rerun, "-m", "dvc", "exp", "run", "-n", "r2", "-S", "lora.r=2")
    assert refused.returncode != 0
    assert "are in no commit and in no experiment" in refused.stderr
    assert "set params.yaml back (lora.r: 2 to 4)" in refused.stderr
    assert (rerun / EVAL).read_bytes() == first
    git(rerun, "checkout", "params.yaml")
    # Nor does a mistake in a section that the last stage reads wait for its turn.
    text = (rerun / "params.yaml").read_text(encoding="utf-8")
    (rerun / "params.yaml").write_text(text.replace("max_delta_nll", "max_delta_nl"), encoding="utf-8")
    mistake = python(rerun, "-m", "dvc", "repro")
    assert "code: params.yaml: export.max_delta_nll is missing" in mistake.stderr
    assert "export.max_delta_nl is not a known key" in mistake.stderr
    assert "Running stage 'train'" not in mistake.stdout
    (rerun / "params.yaml").write_text(text, encoding="utf-8")
    again = tuneline(rerun, "repro")
    assert again.returncode == 0, again.stderr
    assert (rerun / EVAL).read_bytes() == first
    assert "10 stages unchanged" in again.stdout
    assert git(rerun, "status", "--porcelain", "code") == ""


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
