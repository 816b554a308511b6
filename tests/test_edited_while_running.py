"""Params or code edited while `dvc repro` runs a stage: it fails by name, and nothing claims to be made by the new values.

DVC records parameters and dependencies as they are when a stage ends, so that without a check it would record the new ones
for outputs of the old ones.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import dvc

pytestmark = pytest.mark.story

PARAMS = {
    "fetch": ("packages: []", "packages: [nothing]", "fetch.packages was [] and is ['nothing']"),
    "base": ("dtype: bfloat16", "dtype: float32", "base.dtype was 'bfloat16' and is 'float32'"),
    "convert": ("heldout: 6", "heldout: 5", "data.heldout was 6 and is 5"),
    "tokenize": ("max_tokens: 512", "max_tokens: 511", "tokenize.max_tokens was 512 and is 511"),
    "train": ("alpha: 32", "alpha: 999", "lora.alpha was 32.0 and is 999.0"),
    "predict_base": ("max_new_tokens: 8", "max_new_tokens: 7", "evaluate.max_new_tokens was 8 and is 7"),
    "evaluate": ("max_new_tokens: 8", "max_new_tokens: 9", "evaluate.max_new_tokens was 8 and is 9"),
    "export": ("max_delta_nll: 0.01", "max_delta_nll: 0.02", "export.max_delta_nll was 0.01 and is 0.02"),
}
"""{stage: (text of params.yaml, what it becomes while the stage runs, what is said)}, in the order of dvc.yaml but
for `report`, which reads no section."""
CODE = {
    "fetch": "stages/fetch.py",
    "base": "tuneline/base/canonicalize.py",
    "convert": "tuneline/data/heldout.py",
    "train": "tuneline/train/batching.py",
}
"""{stage: a file that it runs}; the one of `base` is imported only when the stage has begun."""
PAUSE = '''

def paused(main):
    """main(), waiting for the test once the stage has its first section: PAUSE names a pipe that the test will close."""
    import os

    def run(stage):
        load, pipe = stage.load, os.environ.pop("PAUSE", None)

        def load_and_wait(section):
            nonlocal pipe
            loaded, pipe_path, pipe = load(section), pipe, None
            if pipe_path:
                with open(pipe_path) as waiting:
                    waiting.read()
            return loaded

        stage.load = load_and_wait
        main(stage)

    return run


if __name__ == "__main__":
    run_stage(paused(main), __doc__)
'''
"""Instead of the last two lines of a stage."""


def outputs(project: Path, stage: str) -> list[Path]:
    entry = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    listed = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    return [project / (name if isinstance(name, str) else next(iter(name))) for name in listed]


def add_pauses(project: Path) -> None:
    for stage in PARAMS:
        path = project / f"stages/{stage}.py"
        body, start, end = path.read_text(encoding="utf-8").rpartition("\n\nif __name__ ==")
        assert start
        assert end.endswith("run_stage(main, __doc__)\n")
        path.write_text(body + PAUSE, encoding="utf-8")


def run_and_edit(project: Path, stage: str, edit: Callable[[], object]) -> subprocess.CompletedProcess:
    """`dvc repro` of one stage; `edit` is called while it waits in the middle of its work."""
    pipe = project.parent / "pause"
    os.mkfifo(pipe)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-f", "-s", stage], cwd=project, text=True,
        env=os.environ | {"PATH": path, "PYTHONPATH": "", "PAUSE": str(pipe)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        writing_end = opened_when_read(pipe, process)
        edit()
        os.close(writing_end)
        said = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, *said)
    finally:
        process.kill()
        pipe.unlink()


def opened_when_read(pipe: Path, process: subprocess.Popen) -> int:
    """The pipe's writing end, once the stage waits at the other one."""
    deadline = time.monotonic() + 240
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None, f"the stage ended before it loaded anything: {process.communicate()}"
            assert time.monotonic() < deadline, "the stage loaded nothing within 240 s"
            time.sleep(0.02)


def edited(project: Path, stage: str, file: str, text: str) -> str:
    """Let a file become `text` while a stage runs, and see that the stage fails and leaves nothing; returns what it said."""
    path, lock = project / file, project / "dvc.lock"
    before, recorded = path.read_text(encoding="utf-8"), lock.read_bytes()
    result = run_and_edit(project, stage, lambda: path.write_text(text, encoding="utf-8"))
    path.write_text(before, encoding="utf-8")
    assert result.returncode != 0
    assert [output for output in outputs(project, stage) if output.exists()] == []
    assert list(project.rglob(".*.partial")) == []
    assert lock.read_bytes() == recorded
    return result.stderr


def edited_params(project: Path, stage: str) -> str:
    """params.yaml as PARAMS says that it becomes."""
    old, new, message = PARAMS[stage]
    text = (project / "params.yaml").read_text(encoding="utf-8")
    before, section, rest = text.partition(f"{message.partition('.')[0]}:\n")
    assert old in rest
    return before + section + rest.replace(old, new, 1)


@pytest.mark.matrix
def test_an_edit_while_a_stage_runs_fails_it_by_name_and_leaves_nothing(project, subtests):
    add_pauses(project)
    dvc(project, "repro")
    assert [path for stage in PARAMS for path in outputs(project, stage) if not path.exists()] == []
    # From the last one on, because a stage that has failed leaves nothing to those after it.
    for stage, (_, _, message) in reversed(PARAMS.items()):
        with subtests.test(stage=stage, edited="params"):
            said = edited(project, stage, "params.yaml", edited_params(project, stage))
            assert f"{stage}: changed while the stage ran: {message}; nothing was written" in said
        if stage in CODE:
            with subtests.test(stage=stage, edited=CODE[stage]):
                text = (project / CODE[stage]).read_text(encoding="utf-8")
                said = edited(project, stage, CODE[stage], f"{text}\n\nEDITED = True\n")
                assert f"{stage}: changed while the stage ran: {CODE[stage]} has another content; nothing" in said


@pytest.mark.matrix
def test_without_the_check_dvc_records_parameters_that_made_nothing(project):
    add_pauses(project)
    dvc(project, "repro", "fetch")
    path = project / "params.yaml"
    # Nothing but an edit makes a stage fail.
    assert run_and_edit(project, "fetch", lambda: None).returncode == 0
    stage = project / "tuneline/runtime/stage.py"
    text = stage.read_text(encoding="utf-8")
    assert text.count("                self.check_unchanged()\n") == 1
    stage.write_text(text.replace("self.check_unchanged()\n", "pass\n"), encoding="utf-8")
    dvc(project, "repro", "fetch")
    params = edited_params(project, "fetch")
    with pytest.raises(AssertionError):
        edited(project, "fetch", "params.yaml", params)
    assert path.read_text(encoding="utf-8") != params
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    assert lock["stages"]["fetch"]["params"]["params.yaml"]["fetch"] == {"packages": ["nothing"]}
