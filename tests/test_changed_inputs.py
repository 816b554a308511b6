"""One byte of any input of any stage changed: found and named; a file that changes while a stage reads it, too."""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import dvc, python
from tests.helpers.paths import ROOT
from tuneline.runtime.hashing import folder_sha256, write_sums
from tuneline.runtime.stage import Stage
from tuneline.runtime.storage.content import dvc_hash, files_of, listing, md5
from tuneline.runtime.storage.inputs import verified
from tuneline.runtime.storage.stage_map import inputs_of, outputs
from tuneline.runtime.storage.written import record_written, update, written

STAGES = ("convert", "tokenize", "train", "predict_base", "evaluate", "report", "export")
"""Those that read what another one wrote."""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def flip(path: Path, at: int = -1) -> None:
    """Change one byte, and nothing that `stat` tells of the content."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def finished(workspace):
    """A project in which every stage wrote something: folders of two files, and files of two lines."""
    folder = workspace()
    (folder / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    write(Path("data/raw/own.csv"), "question,answer\n")
    for output in outputs():
        files = [output.path] if output.path.suffix else [output.path / name for name in ("config.json", "a/b.bin")]
        for file in files:
            write(file, f"{file}\n{output.stage}\n")
    record()
    return folder


def record() -> None:
    for stage in {output.stage for output in outputs()}:
        record_written(stage, {output.path: output.path for output in outputs() if output.stage == stage})


def lock() -> None:
    """What DVC says after a run."""
    stages: dict = {}
    for output in outputs():
        entry = {"path": str(output.path), "hash": "md5", "md5": dvc_hash(listing(output.path, md5))}
        stages.setdefault(output.stage, {"outs": []})["outs"].append(entry)
    write(Path("dvc.lock"), yaml.safe_dump({"schema": "2.0", "stages": stages}))


def read_files(stage: str) -> list[tuple[str, Path]]:
    """(the stage that wrote it, file) of each file that a stage reads of another one."""
    found = []
    for output in outputs():
        if any(output.path.is_relative_to(path) for path in inputs_of(stage)):
            found += [(output.stage, file) for file in files_of(output.path).values()]
    return found


@pytest.mark.parametrize("known_by", ["sums", "lock", "both"])
@pytest.mark.parametrize("stage", STAGES)
def test_one_byte_of_any_input_is_found_and_named(finished, stage, known_by):
    if known_by != "sums":
        lock()
    if known_by == "lock":
        shutil.rmtree("metrics/sums")
    Stage(stage, code={})
    files = read_files(stage)
    assert len(files) >= (1 if stage == "convert" else 3)
    for writer, file in files:
        if known_by == "lock":
            shutil.rmtree("metrics/sums", ignore_errors=True)
        flip(file)
        with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
            Stage(stage, code={})
        # The lock has one sum of a folder.
        name = file if known_by != "lock" else next(one.path for one in outputs() if file.is_relative_to(one.path))
        assert str(error.value).startswith(f"{name} is not what the stage {writer} wrote: ")
        assert re.search(r": (xxh3|md5) [0-9a-f]{12}, expected [0-9a-f]{12}; `", str(error.value))
        assert f"`dvc repro {writer}` makes it anew" in str(error.value)
        flip(file)
        Stage(stage, code={})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: Path("models/base/config.json").unlink(), "models/base/config.json is not what .* nothing"),
        (lambda: write(Path("models/base/x.py"), "x"), "models/base/x.py is not what .* expected nothing"),
        (lambda: Path("models/base/config.json").write_text(""), "models/base/config.json is not what"),
        (lambda: shutil.copy("models/adapter/a/b.bin", "models/base/a/b.bin"), "models/base/a/b.bin is not what"),
        (lambda: Path("models/base/a/b.bin").rename("models/base/b.bin"), "models/base/a/b.bin is not .*and 1 more"),
    ],
    ids=["gone", "more", "empty", "another's", "moved"],
)
def test_a_folder_is_what_it_was_file_by_file(finished, change, said):
    change()
    with pytest.raises(ValueError, match=said):
        Stage("train", code={})


def test_what_dvc_puts_in_place_is_right_and_known_from_then_on(finished):
    """`dvc checkout` of another commit, `dvc pull` and `dvc commit` leave what dvc.lock says, and no stage wrote it here."""
    flip(Path("data/processed/train.jsonl"))
    lock()
    before = written("convert")["data/processed/train.jsonl"]
    Stage("tokenize", code={})
    assert written("convert")["data/processed/train.jsonl"] != before
    Path("dvc.lock").unlink()
    Stage("tokenize", code={})
    # A stage that ran by itself is newer than the lock.
    lock()
    flip(Path("data/processed/train.jsonl"))
    record()
    Stage("tokenize", code={})


def test_what_no_stage_is_known_to_have_written_passes_and_its_checksums_count(finished):
    shutil.rmtree("metrics/sums")
    flip(Path("data/processed/train.jsonl"))
    Stage("tokenize", code={})
    write_sums(Path("models/base"))
    Stage("tokenize", code={})
    flip(Path("models/base/config.json"))
    with pytest.raises(ValueError, match=r"models/base/config\.json is not what the stage base wrote: sha256"):
        Stage("tokenize", code={})


def test_a_torn_record_is_no_record(finished):
    for text in ("", "[]", '{"data/processed/train.jsonl": 3}'):
        write(Path("metrics/sums/convert.json"), text)
        lock()
        Stage("tokenize", code={})


def test_dvc_sees_the_byte_then_too(finished):
    """It trusts size and time, and `dvc repro` would mend nothing."""
    lock()
    path = Path("models/base/config.json")
    flip(path)
    before = path.stat().st_mtime_ns
    with pytest.raises(ValueError, match="dvc checkout --force models/base"):
        Stage("train", code={})
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: write(Path("data/raw/own.csv"), "other\n"), "data/raw/own.csv has another content"),
        (lambda: flip(Path("data/raw/own.csv")), "data/raw/own.csv has another content"),
        (lambda: write(Path("data/raw/more/b.csv"), "b\n"), "data/raw/more/b.csv is new"),
        (lambda: Path("data/raw/own.csv").unlink(), "data/raw/own.csv is not there any more"),
        (lambda: flip(Path("data/raw/lawbench/config.json")), "data/raw/lawbench/config.json has another content"),
    ],
    ids=["replaced", "one byte", "new", "gone", "fetched"],
)
def test_an_input_that_changes_while_the_stage_runs_ends_it(finished, change, said):
    stage = Stage("convert", code={})
    target = Path("data/processed/train.jsonl")
    before = target.read_bytes(), written("convert")
    with (  # noqa: PT012
        pytest.raises(ValueError, match=rf"^changed while the stage ran: {said}; nothing was written"),
        stage.outputs(target) as (path,),
    ):
        path.write_text("new")
        change()
    assert (target.read_bytes(), written("convert")) == before


def test_the_same_content_put_in_its_place_is_no_change(finished):
    stage = Stage("train", code={})
    path = Path("models/base/config.json")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert list(stage.inputs.changes()) == []


def test_dvc_is_asked_for_nothing_that_it_has_not(finished):
    flip(Path("models/base/config.json"))
    with pytest.raises(ValueError, match=r"expected [0-9a-f]{12}; `dvc repro base` makes it anew$"):
        Stage("train", code={})


def touched(path: Path) -> None:
    """Another time, other permissions, one more link and another inode; the same content."""
    copy = path.with_name(f".{path.name}.copy.lock")
    shutil.copy(path, copy)
    copy.replace(path)
    path.chmod(0o600)
    os.link(path, path.with_name(f".{path.name}.link.lock"))


def test_links_and_permissions_of_raw_files_are_no_change(finished):
    stage = Stage("convert", code={})
    touched(Path("data/raw/own.csv"))
    assert list(stage.inputs.changes()) == []


def test_links_and_permissions_of_a_source_outside_are_no_change(finished, tmp_path):
    source = tmp_path / "their/config.json"
    write(source, "{}")
    stage = Stage("base", code={})
    stage.inputs.watch(tmp_path / "their", folder_sha256(tmp_path / "their"))
    touched(source)
    assert list(stage.inputs.changes()) == []
    flip(source)
    assert list(stage.inputs.changes()) == [f"{source} has another content"]


def test_what_two_stages_record_at_once_is_all_kept(finished):
    outputs_made = [f"models/made{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: update("train", {name: {"": "0"}}), outputs_made))
    assert written("train").keys() >= set(outputs_made)


def test_pipes_and_devices_among_raw_files_are_not_read(finished):
    os.mkfifo("data/raw/pipe")
    Path("data/raw/zero").symlink_to("/dev/zero")
    Path("data/raw/memory").symlink_to("/proc/kcore")
    Path("data/raw/messages").symlink_to("/proc/kmsg")
    assert list(Stage("convert", code={}).inputs.changes()) == []


def test_a_source_outside_of_the_project_is_watched(finished, tmp_path):
    source = tmp_path / "their/config.json"
    write(source, "{}")
    stage = Stage("base", code={})
    stage.inputs.watch(tmp_path / "their")
    assert list(stage.inputs.changes()) == []
    flip(source)
    assert list(stage.inputs.changes()) == [f"{source} has another content"]


@pytest.mark.matrix
def test_a_finished_project_finds_each_byte_by_its_lock(project, monkeypatch):
    dvc(project, "repro")
    monkeypatch.chdir(project)
    for known_by in ("both", "lock"):
        for stage in STAGES:
            for writer, file in read_files(stage):
                if known_by == "lock":
                    shutil.rmtree("metrics/sums", ignore_errors=True)
                if file.stat().st_size == 0:
                    continue
                flip(file, at=file.stat().st_size // 2)
                # DVC's cache says which file of a folder it is.
                with pytest.raises(ValueError, match=rf"^{re.escape(str(file))} is not what the stage {writer} wrote"):
                    Stage(stage, code={})
                flip(file, at=file.stat().st_size // 2)
                Stage(stage, code={})
    flip(Path("models/base/model.safetensors"))
    failed = python(project, "-m", "stages.export")
    assert failed.returncode == 1
    assert failed.stderr.startswith("export: models/base/model.safetensors is not what the stage base wrote: xxh3 ")
    assert len(failed.stderr.splitlines()) == 1
    verify = python(project, "-m", "tuneline", "verify")
    assert "verify: models/base: model.safetensors has changed" in verify.stderr
    # The way out that the sentence says.
    dvc(project, "checkout", "--force", "models/base")
    assert python(project, "-m", "stages.export").returncode == 0
    assert all(verified(output) for output in outputs() if output.path == Path("models/base"))
    assert json.loads(Path("metrics/export.json").read_text())["delta_nll"] < 0.01


def test_a_list_of_code_without_the_stage_itself_is_refused(finished):
    path = Path("code/train.txt")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for text in ("", "".join(line for line in lines if not line.endswith("  stages/train.py\n"))):
        write(path, text)
        with pytest.raises(ValueError, match=r"code/train\.txt does not list stages/train\.py, .*: run `dvc repro`"):
            Stage("train")
