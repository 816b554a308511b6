"""dvc.yaml agrees with the code: the command, the sections and the paths of each stage; the READMEs agree with dvc.yaml.

A dependency that dvc.yaml omits gives stale results without a word, so the check is shown to fail on a planted omission of
each kind.
"""

import ast
import copy
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.helpers.paths import ROOT
from tuneline.evaluate.figures import ALWAYS, OF_CALLS
from tuneline.formats.metrics import MAIN_METRICS
from tuneline.runtime.code import code_lists

MAP = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES = [name for name in MAP["stages"] if name != "code"]
CODE = code_lists(ROOT)
"""{stage: {file: hash}}, as the code is now."""
DATA = re.compile(r"(data|models|metrics)/[\w./-]+|reviews")
HELDOUT = {
    "data/processed/heldout.jsonl",
    "data/processed/base_answers.jsonl",
    "data/processed/base_general.jsonl",
}


def calls(files: Iterable[str]) -> Iterator[tuple[str, ast.expr]]:
    """(name of the function, first argument) of each call in the files; only Python is read."""
    for file in files:
        if file.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args:
                    function = node.func
                    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                    yield name, node.args[0]


def sections_loaded(files: Iterable[str]) -> set[str]:
    """Sections by the convention that `stage.load(Lora)`, or `load(Lora)` where it is handed on, loads section `lora`."""
    found = [value.id for name, value in calls(files) if name == "load" and isinstance(value, ast.Name)]
    return {name.lower() for name in found if name[0].isupper() and not name.isupper()}


def paths_spelled(files: Iterable[str]) -> set[str]:
    """Data paths that stand as Path("...") in the files."""
    found = [value.value for name, value in calls(files) if name == "Path" and isinstance(value, ast.Constant)]
    return {path for path in found if isinstance(path, str) and DATA.fullmatch(path)}


def names_of(entries: list) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def outputs(stage: dict) -> list[str]:
    return names_of([*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])])


def complaints(name: str, stage: dict) -> list[str]:
    """Everything that is wrong with a stage of dvc.yaml."""
    wrong = []
    if stage.get("cmd") != f"python -m stages.{name}":
        wrong.append(f"cmd is {stage.get('cmd')!r}")
    if not stage.get("desc"):
        wrong.append("no desc")
    wrong += [f"{word} is there" for word in ("always_changed", "persist") if word in str(stage)]
    deps = set(stage["deps"])
    if f"code/{name}.txt" not in deps:
        wrong.append(f"dep missing: code/{name}.txt")
    sections = sections_loaded(CODE[name])
    if sections != set(stage.get("params", [])):
        wrong.append(f"params are {sorted(stage.get('params', []))}, loaded {sorted(sections)}")
    # Only the stage spells paths, and hands them to its package.
    spelled = paths_spelled([f"stages/{name}.py"])
    listed = {*outputs(stage), *deps} - {f"code/{name}.txt"}
    wrong += [f"path not listed: {path}" for path in sorted(spelled - listed)]
    wrong += [f"path never used: {path}" for path in sorted(listed - spelled)]
    return wrong


@pytest.mark.parametrize("name", STAGES)
def test_the_stage_is_as_the_map_says(name):
    assert complaints(name, MAP["stages"][name]) == []


@pytest.mark.parametrize(
    ("name", "key", "entry", "complaint"),
    [
        ("train", "deps", "code/train.txt", "dep missing: code/train.txt"),
        ("evaluate", "deps", "models/adapter", "path not listed: models/adapter"),
        ("export", "deps", "metrics/eval_details.json", "path not listed: metrics/eval_details.json"),
        ("convert", "deps", "data/raw", "path not listed: data/raw"),
        ("convert", "outs", "data/processed/rejects.jsonl", "path not listed: data/processed/rejects.jsonl"),
        ("train", "outs", {"metrics/train.json": {"cache": False}}, "path not listed: metrics/train.json"),
        ("evaluate", "metrics", {"metrics/eval.json": {"cache": False}}, "path not listed: metrics/eval.json"),
        ("train", "params", "lora", "params are ['deepspeed', 'freeze', 'ptuning', 'train', 'tune'], loaded "),
        ("export", "params", "base", "params are ['export'], loaded ['base', 'export']"),
        ("fetch", "params", "fetch", "params are [], loaded ['fetch']"),
    ],
)
def test_a_planted_omission_is_found(name, key, entry, complaint):
    stage = copy.deepcopy(MAP["stages"][name])
    stage[key].remove(entry)
    (found,) = complaints(name, stage)
    assert found.startswith(complaint)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cmd": "python -m stages.base"}, "cmd is 'python -m stages.base'"),
        ({"cmd": "python -m stages.fetch\n"}, "cmd is 'python -m stages.fetch\\n'"),
        ({"cmd": ["python -m stages.fetch"]}, "cmd is ['python -m stages.fetch']"),
        ({"desc": ""}, "no desc"),
        ({"always_changed": True}, "always_changed is there"),
        ({"outs": [{"data/raw/lawbench": {"persist": True}}]}, "persist is there"),
        ({"outs": ["data/raw/lawbench", "data/raw/nothing"]}, "path never used: data/raw/nothing"),
        ({"deps": ["code/fetch.txt", "tuneline/fetch/config.py"]}, "path never used: tuneline/fetch/config.py"),
        ({"deps": ["code/fetch.txt", "code/base.txt"]}, "path never used: code/base.txt"),
        ({"params": ["fetch", "data"]}, "params are ['data', 'fetch'], loaded ['fetch']"),
    ],
)
def test_a_planted_mistake_is_found(changes, complaint):
    assert complaints("fetch", MAP["stages"]["fetch"] | changes) == [complaint]


def test_the_first_stage_writes_one_list_for_each_other_stage():
    stage = MAP["stages"]["code"]
    assert stage["cmd"] == "python -m stages.code"
    assert stage["desc"]
    assert stage["deps"] == ["evaluation", "stages", "tuneline"]
    assert sorted(outputs(stage)) == sorted(f"code/{name}.txt" for name in STAGES)
    assert set(STAGES) == set(CODE), "a file of stages/ for each stage"
    # It reads all of them, so that no mistake waits for its stage.
    assert set(stage["params"]) == set(PARAMS)
    assert "persist" not in str(stage)


def test_every_section_is_used_and_one_that_is_not_would_be_seen():
    used = {section for name in STAGES for section in MAP["stages"][name].get("params", [])}
    assert used == set(PARAMS)
    assert used != {*PARAMS, "planted"}


def test_packages_are_told_their_paths(tmp_path):
    """`load(X)` and `Path("...")` mean the same wherever a stage's code calls them."""
    # Where these three lie is a default of the chat and the commands; no stage takes it from there.
    names = {"tuneline/models/loading.py": {"models/base", "models/adapter", "models/merged"}}
    for stage, files in CODE.items():
        for file in files.keys() - {f"stages/{stage}.py"}:
            assert (
                paths_spelled([file]) - names.get(file, set()) - {"metrics/speed", "metrics/sums", "metrics/logs"}
                == set()
            ), file


def above(name: str, stages: dict) -> set[str]:
    """Everything that a stage depends on, directly or not."""
    producer = {output: stage for stage, entry in stages.items() for output in outputs(entry)}
    deps, waiting = set(), [name]
    while waiting:
        for dep in stages[waiting.pop()]["deps"]:
            if dep not in deps:
                deps.add(dep)
                # `data/raw` holds what `fetch` writes.
                waiting += [stage for output, stage in producer.items() if Path(output).is_relative_to(dep)]
    return deps


def test_no_road_leads_from_the_heldout_items_to_training():
    found = above("train", MAP["stages"])
    assert {"data/processed/tokens.safetensors", "data/processed/train.jsonl", "models/base", "data/raw"} <= found
    assert found.isdisjoint(HELDOUT)
    assert set(outputs(MAP["stages"]["predict_base"])) < HELDOUT
    # They would be found, one stage away or more.
    for name, dep in (("train", "data/processed/base_answers.jsonl"), ("tokenize", "data/processed/heldout.jsonl")):
        stages = copy.deepcopy(MAP["stages"])
        stages[name]["deps"].append(dep)
        assert not above("train", stages).isdisjoint(HELDOUT)


def test_dvc_lists_what_a_person_compares_and_no_facts_of_a_run():
    listed = [path for stage in MAP["stages"].values() for path in names_of(stage.get("metrics", []))]
    assert listed == ["metrics/eval.json"]
    assert "metrics" not in MAP
    figures = json.loads((ROOT / "metrics/eval.json").read_text(encoding="utf-8"))
    assert len(figures) <= 10
    # Neither nesting nor digits that nobody reads.
    assert all(type(value) in (int, float) and value == round(value, 6) for value in figures.values())
    assert not any(path.startswith("metrics/speed") for stage in MAP["stages"].values() for path in outputs(stage))
    ignored = (ROOT / "metrics/.gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/speed/", "/eval_details.json", "/convert_details.json"} <= set(ignored)


def test_figures_of_the_committed_run_are_in_the_order_that_its_stage_writes():
    order = [*MAIN_METRICS, "general_nll_change", *OF_CALLS, *ALWAYS, "items"]
    names = list(json.loads((ROOT / "metrics/eval.json").read_text(encoding="utf-8")))
    assert names == sorted(names, key=order.index)


def test_each_table_is_plotted_once():
    """DVC draws a file under a stage's `plots` as well as at the top twice, the first time by its first columns."""
    assert not any("plots" in stage for stage in MAP["stages"].values())
    written = [path for stage in MAP["stages"].values() for path in outputs(stage)]
    plotted = []
    for (plot,) in (definition.values() for definition in MAP["plots"]):
        axes = [axis for axis in (plot["x"], plot["y"]) if isinstance(axis, dict)]
        (path,) = {path for axis in axes for path in axis}
        plotted.append(path)
        own = ROOT / f".dvc/plots/{plot['template']}.json"
        assert own.is_file(), plot["template"]
    assert sorted(plotted) == sorted(path for path in written if path.endswith(".csv"))


def between(text: str, begin: str, end: str) -> str:
    """What stands between two lines that are there once each."""
    lines = text.splitlines()
    assert lines.count(begin) == lines.count(end) == 1
    return "\n".join(lines[lines.index(begin) + 1 : lines.index(end)])


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_table_of_stages_is_as_the_map_says(name):
    from tuneline.cli.stage_table import CHINESE, MARKERS, table

    chinese = name.endswith(".zh.md")
    assert MARKERS == ("<!-- stages: generated by `make stage-table` -->", "<!-- /stages -->")
    lines = between((ROOT / name).read_text(encoding="utf-8"), *MARKERS)
    assert lines.strip() == table(ROOT / "dvc.yaml", chinese).strip(), "run `make stage-table`"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.strip().splitlines()]
    assert rows[0] == (["阶段", "作用", "读取", "写出"] if chinese else ["stage", "what it does", "reads", "writes"])
    assert [row[0].strip("`") for row in rows[2:]] == list(MAP["stages"])
    assert list(CHINESE) == list(MAP["stages"])
    for stage, desc, reads, writes in rows[2:]:
        entry = MAP["stages"][stage.strip("`")]
        assert desc == (CHINESE[stage.strip("`")] if chinese else entry["desc"])
        read, written = [*entry["deps"], *entry.get("params", [])], outputs(entry)
        for paths, cell in ((read, reads), (written, writes)):
            assert [path for path in paths if Path(path).parts[0] != "code" and Path(path).name not in cell] == []


def test_a_line_between_the_marks_is_seen():
    assert between("a\n<b>\n\nrow\n</b>\nc\n", "<b>", "</b>") == "\nrow"
    with pytest.raises(AssertionError):
        between("a\n<b>\nrow\n", "<b>", "</b>")
