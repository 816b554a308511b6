"""Promises of the whole project that a reader could check by hand."""

import ast
import re
import subprocess
import sys

import pytest

from tests.helpers.commands import python
from tests.helpers.paths import ROOT

CODE = sorted(path for folder in ("stages", "tuneline", "chat", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
ENTRIES = [
    *(f"stages.{path.stem}" for path in sorted((ROOT / "stages").glob("[a-z]*.py"))),
    "benchmarks.serve", "benchmarks.merge", "benchmarks.loss", "benchmarks.plan", "benchmarks.methods", "benchmarks.train",
    "benchmarks.gpu.steps", "benchmarks.speed", "benchmarks.speed.pipeline",
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
def test_help_is_instant_because_nothing_heavy_is_imported(entry):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['{entry}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{entry}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'transformers', 'deepspeed', 'peft', 'scipy', 'dvc'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy), 'STATUS', end.code)\n"
    )
    result = python(ROOT, "-c", program)
    assert result.stdout.splitlines()[-1] == "HEAVY [] STATUS 0", result.stderr
    assert f"python -m {entry}" in result.stdout


def test_nothing_is_loaded_unsafely():
    unsafe = re.compile(
        r"trust_remote_code\s*=\s*True|\bpickle\b\.|weights_only\s*=\s*False|torch\.load\((?!.*weights_only=True)|shell\s*=\s*True|(?<![.\w])eval\("
    )
    found = [f"{path.name}: {line}" for path in CODE for line in path.read_text().splitlines() if unsafe.search(line)]
    assert found == []


def test_the_tree_asks_for_no_remote_code_and_no_pickle():
    for file in [
        path for folder in ("stages", "tuneline", "chat", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file
            if isinstance(node, ast.keyword) and node.arg == "weights_only":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is True, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = f"{getattr(node.func.value, 'id', '')}.{node.func.attr}"
                assert called not in ("pickle.load", "pickle.loads", "joblib.load", "importlib.util"), file
                if called == "torch.load":
                    assert any(keyword.arg == "weights_only" for keyword in node.keywords), file
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                        assert isinstance(value, ast.Constant), file
                        assert value.value is False, file


def test_models_are_loaded_in_one_place():
    loader = re.compile(r"\.from_pretrained\(")
    users = {str(path.relative_to(ROOT)) for path in CODE if loader.search(path.read_text())}
    # The base stage reads foreign checkpoints; everything after it reads what that stage wrote. Peers load as they do.
    users = {name for name in users if not name.startswith("benchmarks/contenders/")}
    base = {f"tuneline/base/{name}.py" for name in ("canonicalize", "generation", "text_part", "whole_checkpoint")}
    strangers = {f"tuneline/models/untrusted/{name}.py" for name in ("native_config", "tokenizer_trial")}
    assert users == base | strangers | {"tuneline/models/loading.py"}


def test_stages_start_as_modules_and_not_as_scripts():
    result = subprocess.run(
        [sys.executable, "-m", "stages.tokenize", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0


def test_the_two_readmes_have_the_same_sections():
    english, chinese = (
        re.findall(r"^(#+) ", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        for name in ("README.md", "README.zh.md")
    )
    assert english == chinese


def test_what_tests_share_is_in_their_helpers():
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                names = [package + alias.name for alias in node.names]
                found += [
                    f"{path.name}: {name}" for name in names if re.search(r"(^|\.)(conftest|test_\w+)(\.|$)", name)
                ]
    assert found == []
