"""A run of a stage: parameters and code as they were at its start, and outputs that go into place together or not at all."""

import json
from pathlib import Path

import pytest

from tests.helpers.commands import python
from tests.helpers.paths import ROOT
from tuneline.runtime.code import code_hash, to_text
from tuneline.runtime.stage import Stage
from tuneline.train.config.lora import Lora
from tuneline.train.config.train import Train

CODE = {"stages/fit.py": "", "tuneline/train/loop.py": "steps = 1\n", "tuneline/train/step.py": "size = 1\n"}
FIRST, SECOND, CURVE = Path("models/adapter"), Path("metrics/train.json"), Path("metrics/loss.csv")


@pytest.fixture
def fit(workspace):
    """Begin the stage `fit` in a project of two sections and two files of code; call it for a Stage."""
    workspace()
    for name, text in CODE.items():
        write(name, text)
    write("code/fit.txt", to_text({name: code_hash(Path(name)) for name in CODE}))
    return lambda: Stage("fit")


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    Path(name).write_text(text.replace(old, new), encoding="utf-8")


def made(stage: Stage, change=lambda: None) -> None:
    """What a stage does: load, write a folder, a file and a curve that grows in place; `change` comes before its end."""
    stage.load(Lora)
    with stage.outputs(FIRST, SECOND, live=[CURVE]) as (folder, metrics):
        write(str(CURVE), "step,loss\n")
        folder.mkdir()
        (folder / "weights").write_text("w")
        metrics.write_text("{}")
        change()


def left() -> set[str]:
    """Files that the stage left, also half-made ones."""
    folders = (path for name in ("models", "metrics") for path in Path(name).rglob("*"))
    return {str(path) for path in folders if path.is_file()}


ALL = {"models/adapter/weights", "metrics/train.json", "metrics/loss.csv"}


def test_outputs_go_into_place_at_the_end(fit):
    def before_the_end() -> None:
        assert left() == {
            "models/.adapter.partial/weights", "metrics/.train.json.partial", "metrics/loss.csv",
            "models/.adapter.lock", "metrics/.train.json.lock",
        }  # fmt: skip

    made(fit(), before_the_end)
    assert left() == ALL
    # A later run replaces them, folders whole.
    write("models/adapter/of_an_earlier_run", "")
    write("models/.adapter.partial/of_a_killed_run", "")
    made(fit())
    assert left() == ALL


def test_nothing_goes_into_place_when_the_stage_fails(fit):
    def fail() -> None:
        raise ValueError("a row is empty")

    with pytest.raises(ValueError, match="a row is empty"):
        made(fit(), fail)
    # The curve of a run that stopped stays: the next one goes on with it.
    assert left() == {"metrics/loss.csv"}


@pytest.mark.parametrize("missing", [FIRST, SECOND])
def test_nothing_goes_into_place_when_an_output_was_not_written(fit, missing):
    stage = fit()
    with pytest.raises(Exception, match="adapter|train"), stage.outputs(FIRST, SECOND) as paths:  # noqa: PT012
        for path, target in zip(paths, (FIRST, SECOND), strict=True):
            if target != missing:
                path.write_text("done")
    assert left() == set()


def test_sections_are_as_they_were_when_the_stage_began(fit, params):
    stage = fit()
    edit("params.yaml", "alpha: 32", "alpha: 999")
    assert stage.load(Lora).alpha == params["lora"]["alpha"] == 32
    assert fit().load(Lora).alpha == 999
    # Also when the file can't be read any more.
    write("params.yaml", "lora: [")
    assert stage.load(Train).max_steps == params["train"]["max_steps"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("params.yaml", "alpha: 32", "alpha: 999", "lora.alpha was 32.0 and is 999.0;"),
        ("params.yaml", "variant: lora", "variant: dora", "lora.variant was 'lora' and is 'dora';"),
        ("params.yaml", "- all", "- q_proj", "lora.target_modules was ['all'] and is ['q_proj'];"),
        ("params.yaml", "alpha: 32", "alpha: fast", "lora.alpha is 'fast', expected a number"),
        ("params.yaml", "alpha: 32", "alpha: 32\n  beta: 1", "lora.beta is not a known key (value 1)"),
        ("params.yaml", "\nlora:", "\nLora:", "section 'lora' is None, expected keys r, alpha"),
        ("params.yaml", "\nlora:", "\nlora: [", "params.yaml is not valid YAML: "),
        ("tuneline/train/loop.py", "1", "2", "tuneline/train/loop.py has another content;"),
        ("tuneline/train/step.py", "size = 1\n", "size = (\n", "tuneline/train/step.py has another content;"),
    ],
)
def test_an_edit_while_the_stage_runs_fails_it_by_name(fit, name, old, new, message):
    stage = fit()
    with pytest.raises(ValueError, match=r"^.+$") as error:
        made(stage, lambda: edit(name, old, new))
    assert message in str(error.value)
    assert left() == set(), "the curve is of no parameters that anybody can name"


def test_every_edit_is_named_at_once(fit):
    def change() -> None:
        edit("params.yaml", "alpha: 32", "alpha: 999")
        edit("params.yaml", "variant: lora", "variant: dora")
        edit("tuneline/train/loop.py", "1", "2")
        Path("tuneline/train/step.py").unlink()

    with pytest.raises(ValueError, match="changed while the stage ran: ") as error:
        made(fit(), change)
    assert str(error.value) == (
        "changed while the stage ran: lora.alpha was 32.0 and is 999.0; lora.variant was 'lora' and is 'dora'; "
        "tuneline/train/loop.py has another content; tuneline/train/step.py has another content; "
        "nothing was written, run `dvc repro` again"
    )


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("params.yaml", "max_steps: null", "max_steps: 17"),
        ("params.yaml", "alpha: 32", "alpha: 32  # twice r"),
        ("params.yaml", "alpha: 32", "alpha: 32.0"),
        ("tuneline/train/loop.py", "steps = 1\n", '"""A module."""\n\nsteps = 1  # once\n'),
    ],
)
def test_an_edit_of_nothing_that_the_stage_runs_on_passes(fit, name, old, new):
    write("tuneline/train/other.py", "size = 1\n")
    made(fit(), lambda: (edit(name, old, new), edit("tuneline/train/other.py", "1", "2")))
    assert left() == ALL


def test_an_edit_that_was_taken_back_passes(fit):
    stage = fit()
    edit("params.yaml", "alpha: 32", "alpha: 999")
    edit("tuneline/train/loop.py", "1", "2")
    stage.load(Lora)
    edit("params.yaml", "alpha: 999", "alpha: 32")
    edit("tuneline/train/loop.py", "2", "1")
    made(stage)
    assert left() == ALL


def test_a_list_of_code_that_is_out_of_date_is_refused_at_the_start(fit):
    edit("tuneline/train/loop.py", "1", "2")
    with pytest.raises(ValueError, match=r"^code/fit\.txt is out of date, tuneline/train/loop\.py has changed since"):
        fit()
    Path("code/fit.txt").unlink()
    with pytest.raises(ValueError, match=r"code/fit\.txt was not found"):
        fit()


TOY = """
from pathlib import Path

from tuneline.runtime.stage import Stage, run_stage
from tuneline.train.config.lora import Lora


def main(stage: Stage) -> None:
    r = stage.load(Lora).r
    with stage.outputs(Path("models/adapter"), live=[Path("metrics/loss.csv")]) as (adapter,):
        adapter.write_text(str(r))
        assert {crash}, "a bug"
    stage.record_run_info(rank=r)
    print(f"fit: r {{r}}")


if __name__ == "__main__":
    run_stage(main, "Fit.")
"""


def run_toy(crash: str = "True"):
    write("stages/__init__.py", "")
    write("stages/fit.py", TOY.format(crash=crash))
    write("code/fit.txt", to_text({"stages/fit.py": code_hash(Path("stages/fit.py"))}))
    return python(Path.cwd(), "-m", "stages.fit", env={"PYTHONPATH": str(ROOT)})


def test_a_stage_says_what_it_wrote_and_what_it_took(workspace, params):
    workspace()
    result = run_toy()
    assert (result.returncode, result.stderr) == (0, "")
    first, second = result.stdout.splitlines()
    assert first == "fit: r 16"
    assert second.startswith("fit: took ")
    assert Path("models/adapter").read_text() == "16"
    facts = json.loads(Path("metrics/speed/fit.json").read_text())
    assert set(facts) == {"wall_seconds", "peak_memory_gb", "rank"}


def test_a_mistake_is_one_sentence_and_a_bug_keeps_its_traceback(workspace):
    workspace(lora={"r": 0})
    result = run_toy()
    assert (result.returncode, result.stdout) == (1, "")
    lines = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    line = 1 + lines.index("  r: 0")
    assert result.stderr == f"fit: params.yaml: lora.r is 0, expected greater than 0 (line {line})\n"
    workspace(lora={"r": 16})
    result = run_toy(crash="False")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("AssertionError: a bug\n")
    assert left() == {"metrics/logs/fit.log"}
    assert "AssertionError: a bug" in Path("metrics/logs/fit.log").read_text(encoding="utf-8")


def test_a_list_of_code_that_lost_a_line_is_noticed(fit):
    write("stages/fit.py", "from tuneline.train import loop\n")
    write("code/fit.txt", to_text({name: code_hash(Path(name)) for name in CODE}))
    fit()
    write("code/fit.txt", to_text({name: code_hash(Path(name)) for name in CODE if name != "tuneline/train/loop.py"}))
    with pytest.raises(
        ValueError, match=r"code/fit.txt does not list tuneline/train/loop.py, which the stage runs: run"
    ):
        fit()


def test_an_input_that_grows_while_it_is_read_is_read_again(fit, monkeypatch):
    write("dvc.yaml", "stages:\n  fit:\n    cmd: python -m stages.fit\n    deps: [code/fit.txt, reviews, notes.txt]\n")
    write("notes.txt", "a")
    write("reviews/anna.jsonl", "1\n")
    stage, readings = fit(), []

    def read(votes: int) -> int:
        path = Path("reviews/anna.jsonl")
        readings.append(path.read_text())
        if len(readings) < votes:
            write("reviews/anna.jsonl", path.read_text() + "2\n")
            write(f"reviews/rater{len(readings)}.jsonl", "1\n")
        return len(readings)

    # It grew before the stage came to it, and twice while it was read.
    write("reviews/anna.jsonl", "1\n1\n")
    assert stage.read_settled(Path("reviews"), lambda: read(3)) == 3
    made(stage)
    # What never settles, and what does not grow by itself, is said at the end.
    readings.clear()
    assert stage.read_settled(Path("reviews"), lambda: read(99)) == 5
    with pytest.raises(ValueError, match=r"changed while the stage ran: reviews/anna.jsonl has another content"):
        made(stage)
    stage.read_settled(Path("reviews"), lambda: None)
    made(stage)
    write("notes.txt", "b")
    readings.clear()
    # To read again would not help.
    stage.read_settled(Path("reviews"), lambda: readings.append(""))
    assert len(readings) == 1
    with pytest.raises(ValueError, match=r"changed while the stage ran: notes.txt has another content"):
        made(stage)
