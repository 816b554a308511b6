"""The Docker image: what goes into it, and its steps run where there is no daemon."""

import os
import re
import subprocess
import tomllib

import pytest

from tests.helpers.dockerfile import ignored, image, in_context, steps
from tests.helpers.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name]


def test_nothing_that_a_project_keeps_for_itself_goes_into_the_image():
    lines = ignored(ROOT)
    private = (
        ".git/config", ".venv/bin/python", ".dvc/cache/files/md5/00/1", ".dvc/config.local", ".dvc/tmp/lock", "bases/mine/a",
        "runs/one/params.yaml", "release/a", "models/merged/a", "models/adapter/a", "data/processed/train.jsonl",
        "data/raw/lawbench/topics.jsonl", "metrics/speed/train.json", "tuneline/__pycache__/x.pyc", "build/site/index.html",
        "metrics/study/study.json", "studies/study.yaml", "data/raw/added.csv", "data/raw/added.csv.dvc", "data/raw/folder/a",
        "reviews/anna.jsonl", "reviews/judge-qwen.jsonl",
    )  # fmt: skip
    assert [name for name in private if in_context(name, lines)] == []


def test_nothing_that_git_ignores_goes_into_the_image():
    lines = ignored(ROOT)
    rules = [name for name in tracked() if name.rpartition("/")[2] == ".gitignore"]
    names = [name for rule in rules for name in samples(rule)]
    assert {"metrics/predictions.jsonl", "metrics/eval_details.json", "tuneline/.venv/x", "build/x"} <= set(names)
    told = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == names, "these names are no samples"
    assert [name for name in names if in_context(name, lines)] == []


def samples(rule: str) -> list[str]:
    """Names of files that a .gitignore leaves out, two a line: as a file, or below it as a folder."""
    folder = rule.rpartition("/")[0]
    lines = (ROOT / rule).read_text(encoding="utf-8").splitlines()
    found = []
    for line in (line for line in lines if line and not line.startswith("#")):
        place = line.strip("/").replace("*", "x")
        deep = [] if "/" in line.rstrip("/") else [f"tuneline/{place}"]
        tops = [f"{folder}/{place}".lstrip("/"), *(deep if not folder else [])]
        found += [top + "/x" for top in tops] + ([] if line.endswith("/") else tops)
    return found


def test_all_that_the_pipeline_runs_goes_into_the_image():
    lines = ignored(ROOT)
    kept = {name for name in tracked() if in_context(name, lines)}
    folders = ("tuneline/", "stages/", "chat/", "recipes/", "code/", "data/raw/", "docs/decisions/")
    assert {name for name in tracked() if name.startswith(folders)} <= kept
    assert {
        "Makefile", "dvc.yaml", "dvc.lock", "params.yaml", "pyproject.toml", "requirements.lock", "requirements-unhashed.lock",
        "LICENSE", "NOTICE", "README.md", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots/page.html",
        ".docker/entrypoint", "metrics/.gitignore", "models/.gitignore", "data/processed/.gitignore",
    } <= kept  # fmt: skip
    assert not {name for name in kept if name.startswith(("tests/", ".github/"))}


def test_libraries_for_tests_alone_are_left_out():
    (removal,) = [step.value for step in steps(DOCKERFILE) if "pip uninstall" in step.value]
    left = set(removal.split()[removal.split().index('"$VENV/bin/python"') + 1 :])
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"][
        "dev"
    ]
    assert left == {re.split(r"[\[>=]", one)[0].lower() for one in extra}


def test_the_image_is_made_by_the_lock_and_runs_as_nobody_special():
    words = [step.word for step in steps(DOCKERFILE)]
    installs = [step.value for step in steps(DOCKERFILE) if "pip install" in step.value]
    assert installs == []
    assert any('make "$VENV/.libraries"' in step.value for step in steps(DOCKERFILE))
    (user,) = [step.value for step in steps(DOCKERFILE) if step.word == "USER"]
    assert user == "1000:1000"
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert not re.search(r"build-essential|gcc|g\+\+|-dev\b", DOCKERFILE)


@pytest.fixture
def own_mounts(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting an overlay needs root")
    for name in ("lower", "upper", "work", "root"):
        (tmp_path / f"probe/{name}").mkdir(parents=True)
    probe = tmp_path / "probe"
    options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
    mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(probe / "root")], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no overlay")
    subprocess.run(["umount", str(probe / "root")], check=True)
    return tmp_path


@pytest.mark.matrix
def test_the_steps_of_the_image_run_and_its_commands_work(own_mounts):
    # The index's own build of torch: those for CPUs alone lie elsewhere.
    with image(ROOT, own_mounts, {"TORCH": os.environ.get("TUNELINE_DOCKER_TORCH", "cuda")}) as machine:
        assert machine.user == "1000:1000"

        def inside(*words: str) -> str:
            return machine.run_checked([*machine.entry, *words])

        assert "repro" in inside("make", "help")
        assert inside("tuneline", "--version").strip()
        # Nothing is set up anew, the code of the image is what git holds, and its first stage runs in DVC.
        assert "setup:" not in inside("make", "setup")
        assert inside("git", "status", "--porcelain") == ""
        inside("dvc", "repro", "code")
        assert inside("git", "status", "--porcelain", "code") == ""
        # Another uid, as with `docker run --user`, and a lock that is not the image's.
        machine.user = "4242:4242"
        assert "tuneline demo" in inside("tuneline", "demo", "--help")
        with machine.inside("requirements.lock").open("a") as lock:
            lock.write("# changed\n")
        refused = machine.run([*machine.entry, "make", "help"])
        assert refused.returncode == 1
        assert "requirements.lock is not the one that this image was built with" in refused.stderr
