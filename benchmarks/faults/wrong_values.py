"""Twelve wrong values for every parameter, as `dvc exp run -S` writes them, and a sample of them through DVC itself.

The sections are those of pydantic, so a new key is tried without a word here. A value is set with DVC's own code for
overrides, and all sections are checked as the stage `code` does.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.cases import Case, Place
from benchmarks.faults.forked import ENVIRONMENT, Limits, run_function
from benchmarks.faults.outcomes import Outcome, Result, Run, judge
from benchmarks.harness import ROOT

VALUES = {
    "2**70": str(2**70),
    "-1": "-1",
    "-2**63": str(-(2**63)),
    "1e300": "1e300",
    "nan": ".nan",
    "inf": ".inf",
    "yes": "'yes'",
    "true": "true",
    "word": "'no such thing'",
    "empty": "''",
    "list": "[1,2]",
    "mapping": "{a: 1}",
}
"""Name to the text behind the sign of equality."""
TEXTS = {"base.source", "base.sha256", "evaluate.url", "evaluate.base_url", "evaluate.model", "evaluate.base_model",
         "evaluate.general",
         "evaluate.api_key_env", "train.init", "train.init_sha256", "deepspeed.hostfile", "lora.layers_pattern",
         "data.exclude"}  # fmt: skip
"""Keys that take any text: what it names is looked up when its stage runs."""
VALID = {"lora.target_modules": "yes", "lora.layers_to_transform": "list", "train.gradient_checkpointing": "true"}
"""Keys for which one of them is a value like any other: a regular expression, numbers of layers, `true | false | auto`."""
SAMPLE = 20


def harmless(key: str, name: str, shipped: Any) -> bool:
    """Whether a value may be accepted: a word where any text may stand, true for a switch, a number for a seed."""
    if isinstance(shipped, bool):
        return name == "true"
    if key in TEXTS:
        return name in ("word", "yes")
    if key in VALID:
        return name == VALID[key]
    return (key.endswith("seed") and name in ("-1", "-2**63", "2**70")) or key in OPEN


OPEN = {"deepspeed.config", "data.placeholders"}
"""Keys that hold whatever a library, or the data, names."""


def cases() -> Iterator[Case]:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    number = 0
    for section, keys in shipped.items():
        for key, value in keys.items():
            number += 1

            def attack(place: Place, key: str = f"{section}.{key}", value: Any = value) -> list[Result]:
                return tried(place, key, value)

            yield Case("values", f"{section}.{key}", attack)
    every = max(1, number * len(VALUES) // SAMPLE)
    pairs = [(f"{section}.{key}", name) for section, keys in shipped.items() for key in keys for name in VALUES]
    for key, name in pairs[:: every + 1]:

        def through(place: Place, key: str = key, name: str = name) -> list[Result]:
            return [through_dvc(place, key, name)]

        yield Case("values", f"dvc:{key}={name}", through)


def tried(place: Place, key: str, shipped: Any) -> list[Result]:
    """All values of a key, in one fork: what each ends with is a line of its standard output."""
    folder = place.folder / "params"
    folder.mkdir(exist_ok=True)
    run = run_function(lambda: _try_all(key), folder, Limits(120))
    ends = [json.loads(line) for line in run.stdout.splitlines()]
    if len(ends) < len(VALUES):
        return [judge(key, run, "code") or Result(key, Outcome.SILENT, "ended early")]
    return [
        _judged(f"{key}={name}", Run(status, "", said), key, harmless(key, name, shipped))
        for name, (status, said) in zip(VALUES, ends, strict=True)
    ]


def _try_all(key: str) -> None:
    for text in VALUES.values():
        shutil.copy(ROOT / "params.yaml", "params.yaml")
        status, said = 0, io.StringIO()
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            try:
                _override_and_check(f"{key}={text}")
            except SystemExit as end:
                status = 1
                said.write(str(end.code))
            except Exception:
                status = 1
                said.write(traceback.format_exc())
        print(json.dumps((status, said.getvalue())))


def _judged(case: str, run: Run, key: str, may_pass: bool) -> Result:
    if failed := judge(case, run, "code", (key, key.partition(".")[0])):
        return failed
    return Result(case, Outcome.RIGHT if may_pass else Outcome.SILENT, "accepted")


def _override_and_check(override: str) -> None:
    """What `dvc exp run -S` does to params.yaml, and what the stage `code` says of it."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    from tuneline.runtime.errors import exit_with_sentence
    from tuneline.runtime.params import load
    from tuneline.sections import check_sections

    try:
        apply_overrides(Path("params.yaml"), [override])
    except DvcException as error:
        sys.exit(f"code: dvc refuses {override}: {' '.join(str(error).split())}")
    with exit_with_sentence("code"):
        check_sections(load)


def through_dvc(place: Place, key: str, name: str) -> Result:
    """`dvc exp run -S` in a whole copy of the project, of the stage that checks all sections."""
    project = place.folder / "project"
    shutil.copytree(place.project, project, symlinks=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | ENVIRONMENT | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-m", "dvc", "exp", "run", "-S", f"{key}={VALUES[name]}", "code"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=300)
    lines = done.stderr.splitlines()
    ours = [line for line in lines if line.startswith("code: ")]
    if any("unexpected error" in line or "Traceback" in line for line in lines):
        return Result(f"dvc:{key}={name}", Outcome.TRACEBACK, done.stderr[-500:])
    if done.returncode and not ours:
        # DVC's own word.
        ours = [f"code: dvc refuses {key}: {lines[-1] if lines else ''}"]
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    section, _, last = key.partition(".")
    run = Run(1 if done.returncode else 0, "", "\n".join(ours))
    return _judged(f"dvc:{key}={name}", run, key, harmless(key, name, shipped[section][last]))
