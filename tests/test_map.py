"""dvc.yaml agrees with the code: every file a stage runs, every section it loads, every path it touches.

A dependency that dvc.yaml omits gives stale results without a word, so the check is shown to fail on a
planted omission of each kind.
"""

import ast
import copy
import re
from pathlib import Path

import pytest
import yaml

from tests.helpers.paths import ROOT

MAP = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
OURS = re.compile(r"(tuneline|stages)(\.\w+)+")
DATA = re.compile(r"(data|models|metrics)/[\w./-]+")
UNTRACKED = {"models/.train.lock", "metrics/speed"}
"""Paths in stages that are no output: the lock, and the facts of a run."""


def module_file(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imported(path: Path) -> set[str]:
    """Names of our modules that a file imports at any depth, or starts by name (the launcher's --module)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return {name for name in names if OURS.fullmatch(name)}


def closure(path: Path) -> set[Path]:
    """The file and all of ours that it imports, directly or not. Packages that are only a docstring do not count."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        waiting += [file for name in imported(current) if (file := module_file(name))]
    return {file for file in seen if len(ast.parse(file.read_text(encoding="utf-8")).body) > 1}


def sections_loaded(files: set[Path]) -> set[str]:
    """Sections by the convention that load(Lora) loads section `lora`."""
    calls = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {
        node.args[0].id.lower()
        for node in calls
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load" and node.args
        and isinstance(node.args[0], ast.Name) and node.args[0].id[0].isupper()
    }  # fmt: skip


def paths_touched(files: set[Path]) -> set[str]:
    """Data paths that are spelled as Path("...") in the files."""
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    spelled = {
        node.args[0].value
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path" and node.args
        and isinstance(node.args[0], ast.Constant)
    }  # fmt: skip
    return {path for path in spelled if DATA.fullmatch(path)} - UNTRACKED


def names_of(entries: list) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def outputs(stage: dict) -> set[str]:
    return names_of([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])])


def complaints(name: str, stage: dict) -> list[str]:
    """Everything that is wrong with a stage of dvc.yaml."""
    wrong = []
    if stage.get("cmd") != f"python -m stages.{name}":
        wrong.append(f"cmd is {stage.get('cmd')!r}")
    if not stage.get("desc"):
        wrong.append("no desc")
    if {"always_changed"} & set(stage) or any("persist" in str(entry) for entry in stage.get("outs", [])):
        wrong.append("always_changed or persist")
    files = closure(ROOT / f"stages/{name}.py")
    deps = set(stage["deps"])
    listed, needed = {dep for dep in deps if dep.endswith(".py")}, {str(file.relative_to(ROOT)) for file in files}
    wrong += [f"dep missing: {path}" for path in sorted(needed - listed)]
    wrong += [f"dep not imported: {path}" for path in sorted(listed - needed)]
    sections = sections_loaded(files)
    if sections != set(stage.get("params", [])):
        wrong.append(f"params are {stage.get('params')}, loaded {sorted(sections)}")
    # What the shared modules spell (models/base in the loader) is a stage's only if the stage spells it too.
    own = {file for file in files if file.parent.name == "stages"} | {
        f for f in files if f.parts[-2:] == ("train", "run.py")
    }
    touched = paths_touched(own)
    known = outputs(stage) | deps
    wrong += [f"path not listed: {path}" for path in sorted(touched - known)]
    spare = {path for path in known if DATA.fullmatch(path)} - touched
    wrong += [f"path never used: {path}" for path in sorted(spare)]
    return wrong


@pytest.mark.parametrize("name", MAP["stages"])
def test_the_stage_is_as_the_map_says(name):
    assert complaints(name, MAP["stages"][name]) == []


@pytest.mark.parametrize(
    ("name", "key", "entry", "complaint"),
    [
        ("train", "deps", "tuneline/train/batching.py", "dep missing: tuneline/train/batching.py"),
        ("train", "deps", "tuneline/train/config/lora.py", "dep missing: tuneline/train/config/lora.py"),
        ("evaluate", "deps", "tuneline/evaluate/metrics/words.py", "dep missing: tuneline/evaluate/metrics/words.py"),
        ("evaluate", "deps", "models/adapter", "path not listed: models/adapter"),
        ("convert", "outs", "data/processed/rejects.jsonl", "path not listed: data/processed/rejects.jsonl"),
        (
            "train",
            "params",
            "lora",
            "params are ['deepspeed', 'freeze', 'ptuning', 'train', 'tune'], loaded ['deepspeed', 'freeze', 'lora'",
        ),
    ],
)
def test_a_planted_omission_is_found(name, key, entry, complaint):
    stage = copy.deepcopy(MAP["stages"][name])
    stage[key].remove(entry)
    assert any(found.startswith(complaint) for found in complaints(name, stage))


def test_a_planted_extra_is_found():
    stage = copy.deepcopy(MAP["stages"]["fetch"])
    stage["deps"].append("tuneline/data/heldout.py")
    stage["outs"].append("data/raw/nothing")
    assert complaints("fetch", stage) == [
        "dep not imported: tuneline/data/heldout.py",
        "path never used: data/raw/nothing",
    ]


def test_every_section_is_used_and_every_data_file_of_the_package_is_a_dep():
    used = {section for stage in MAP["stages"].values() for section in stage.get("params", [])}
    assert used == set(PARAMS)
    deps = {dep for stage in MAP["stages"].values() for dep in stage["deps"]}
    beside = {
        str(path.relative_to(ROOT)) for path in (ROOT / "tuneline").rglob("*.*") if path.suffix in (".yaml", ".jinja")
    }
    assert beside <= deps
    for name, stage in MAP["stages"].items():
        pages = {dep for dep in stage["deps"] if dep.endswith((".html.jinja", ".md.jinja"))}
        assert bool(pages) == ("tuneline/formats/html.py" in stage["deps"]), name


def test_no_road_leads_from_the_heldout_items_to_training():
    producer = {output: name for name, stage in MAP["stages"].items() for output in outputs(stage)}
    waiting, above = ["train"], set()
    while waiting:
        for dep in MAP["stages"][waiting.pop()]["deps"]:
            assert dep not in ("data/processed/heldout.jsonl", "data/processed/base_answers.jsonl")
            if dep in producer and producer[dep] not in above:
                above.add(producer[dep])
                waiting.append(producer[dep])
    assert above == {"tokenize", "convert", "base", "fetch"} - {"fetch"}


def test_speed_facts_are_metrics_of_no_stage():
    listed = set(MAP["metrics"])
    assert listed == {f"metrics/speed/{name}.json" for name in MAP["stages"]}
    assert not any(path.startswith("metrics/speed") for stage in MAP["stages"].values() for path in outputs(stage))


def test_layers_import_one_way_only():
    for file in sorted((ROOT / "tuneline").rglob("*.py")):
        names = imported(file)
        assert not any(name.startswith(("stages.", "chat.", "benchmarks.")) for name in names), file
    for file in sorted((ROOT / "stages").glob("*.py")):
        assert not any(name.startswith("stages.") for name in imported(file)), file
