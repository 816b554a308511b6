"""A tiny finished project: own rows in a wheel of its own, a random base, every stage run, DVC's lock written."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.forked import ENVIRONMENT, Limits, run_forked
from benchmarks.harness import ROOT
from benchmarks.project import write_params
from tuneline.runtime.code import code_lists, list_path, to_text

STAGES = ("fetch", "base", "convert", "tokenize", "predict_base", "train", "evaluate", "report", "export")
"""In the order of dvc.yaml, without `code`."""
MAP: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
WHEEL = "tuneline_rows-1.0-py3-none-any.whl"
MEMBER = "tuneline_rows/consultation.jsonl"
LINKED = ("stages", "tuneline", ".git", ".dvc")
"""What copies of a project share: nothing writes there."""
CHANGES: dict[str, dict[str, Any]] = {
    "fetch": {"packages": ["lawbench"]},
    "data": {"sources": [{"path": "lawbench/consultation.jsonl", "system": ""}, {"path": "medical.csv"}], "heldout": 6},
    "train": {
        "max_steps": 6, "learning_rate": 0.01, "batch_size": 4, "micro_batch_size": 2, "save_steps": 2, "logging_steps": 1,
        "warmup_ratio": 0.1,
    },
    "evaluate": {"max_new_tokens": 8, "batch_size": 4},
    "lora": {"r": 4, "dropout": 0.0},
}  # fmt: skip


def finish(folder: Path) -> Path:
    """Make the project at `folder`/project and run it; its base and its wheel lie beside it. Ends where a stage fails."""
    # By name: what is in tests/ has no types.
    helpers = import_module("tests.helpers.tiny_models")
    project = folder / "project"
    make_wheel(folder / "wheels", ROOT / "tests/fixtures/consultation.jsonl")
    base = helpers.make_base(folder / "bases/tiny")
    for name in ("stages", "tuneline", "data/raw", "evaluation", "reviews"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "lawbench"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, project / name)
    for name in ("general.csv", "health_qa.csv", "self_cognition.jsonl", "triage.csv"):
        (project / "data/raw" / name).unlink(missing_ok=True)
    pin_wheel(project / "tuneline/packages.yaml", folder / "wheels")
    (project / "code").mkdir()
    for stage, files in code_lists(project).items():
        (project / list_path(stage)).write_text(to_text(files), encoding="utf-8")
    write_params(project, CHANGES, {"base": helpers.base_section(base)})
    _command(project, "git", "init", "-q", "-b", "main")
    _command(project, sys.executable, "-m", "dvc", "init", "-q")
    _command(project, sys.executable, "-m", "dvc", "config", "core.analytics", "false")
    for stage in STAGES:
        run = run_forked(stage, project, Limits(300), env=wheels_of(project))
        if run.status != 0:
            sys.exit(f"benchmarks.faults: the stage {stage} of an undisturbed project failed: {run.stderr[-3000:]}")
    _command(project, sys.executable, "-m", "dvc", "commit", "-q", "-f")
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false")
    _command(project, "git", "add", "-A")
    _command(project, "git", *who, "commit", "-q", "-m", "Run")
    return project


def make_wheel(folder: Path, rows: Path) -> None:
    """A wheel that carries the rows as data."""
    folder.mkdir(parents=True)
    info = "tuneline_rows-1.0.dist-info"
    files = {
        MEMBER: rows.read_text(encoding="utf-8"),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tuneline-rows\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)


def pin_wheel(catalogue: Path, wheels: Path) -> None:
    """Let the package `lawbench` be that wheel."""
    with zipfile.ZipFile(wheels / WHEEL) as archive:
        member = archive.read(MEMBER)
    content = yaml.safe_load(catalogue.read_text(encoding="utf-8"))
    pinned = {"path": MEMBER, "name": "consultation.jsonl", "sha256": hashlib.sha256(member).hexdigest()}
    digest = hashlib.sha256((wheels / WHEEL).read_bytes()).hexdigest()
    wheel = {"requirement": "tuneline-rows==1.0", "sha256": digest, "members": [pinned]}
    content["lawbench"] = {"kind": "data", "notice": "Rows made up for tests.\n", "wheels": [wheel]}
    catalogue.write_text(yaml.safe_dump(content), encoding="utf-8")


def wheels_of(project: Path) -> dict[str, str]:
    """What lets pip find the wheel, and nothing else."""
    return {"PIP_FIND_LINKS": str(project.resolve().parent / "wheels"), "PIP_NO_INDEX": "1"}


def copy_project(project: Path, folder: Path) -> Path:
    """A copy to attack; code, git and DVC's own folder are links."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    for path in project.iterdir():
        if path.name in LINKED:
            (folder / path.name).symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True)
        else:
            shutil.copy2(path, folder / path.name)
    return folder


def set_params(project: Path, **changes: Mapping[str, Any]) -> None:
    """Change params.yaml, section by section."""
    path = project / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in changes.items():
        document[section] |= values
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")


def outputs(stage: str) -> list[str]:
    """Files and folders that dvc.yaml lists for a stage."""
    entries = [*MAP[stage]["outs"], *MAP[stage].get("metrics", [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def contents(project: Path, names: list[str]) -> dict[str, bytes]:
    """{file: bytes} of outputs that are there, of folders each file."""
    found: dict[str, bytes] = {}
    for name in names:
        path = project / name
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
        found |= {str(one.relative_to(project)): one.read_bytes() for one in files}
    return found


def remove_outputs(project: Path, stage: str) -> None:
    """As dvc does before it runs a stage."""
    for name in outputs(stage):
        path = project / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def left_behind(project: Path) -> list[str]:
    """Half-written files, and temporary ones, of a run that has ended."""
    partial = [str(path.relative_to(project)) for path in project.rglob("*.partial*") if "stages" not in path.parts]
    temporary = project.parent / f"{project.name}.tmp"
    kept = [path.name for path in temporary.iterdir() if path.name != "cache"] if temporary.is_dir() else []
    return partial + kept


def _command(folder: Path, *words: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = (
        os.environ
        | ENVIRONMENT
        | {"PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.parent / "site")}
    )
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmarks.faults: {' '.join(words)} failed: {done.stderr[-2000:]}")
