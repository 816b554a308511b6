"""Hostile base folders: what a checkpoint may hold that it should not, each made from a good one."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.faults.cases import Case, Place, compared
from benchmarks.faults.finished import contents, left_behind, outputs, remove_outputs, set_params
from benchmarks.faults.forked import Limits
from benchmarks.faults.outcomes import Outcome, Result, judge

LIMITS = Limits(60, memory=4_000_000_000, stdin="y\ny\ny\n")
WEIGHTS = "model.safetensors"
Attack = Callable[[Path], None]
REFUSED: dict[str, Attack] = {}
"""Folders that must be refused: from each a base would be made that is not what was hashed, or not whole."""
HARMLESS: dict[str, Attack] = {}
"""Folders that may be refused, or give the very base of the folder without the attack."""
EITHER: dict[str, Attack] = {}
"""Folders that say themselves what they are: they may be refused, or taken as they are."""


def hostile(table: dict[str, Attack]) -> Callable[[Attack], Attack]:
    def add(attack: Attack) -> Attack:
        table[attack.__name__] = attack
        return attack

    return add


def tensors(folder: Path) -> tuple[dict[str, Any], bytes]:
    """(header, data) of the checkpoint's weights."""
    content = (folder / WEIGHTS).read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_tensors(path: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def index(folder: Path, value: Any) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(value), encoding="utf-8")


def mapped(folder: Path, name: str) -> None:
    """Let an index say that all tensors are in the file of that name, and take the one in the folder away."""
    header, _ = tensors(folder)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    shutil.move(folder / WEIGHTS, elsewhere / WEIGHTS)
    # There must be one, or the folder holds no model.
    write_tensors(folder / "other.safetensors", {}, b"")
    index(folder, {"metadata": {}, "weight_map": {key: name for key in header if key != "__metadata__"}})


def cases() -> Iterator[Case]:
    for module in ("base_files", "weights"):
        import_module(f"benchmarks.faults.hostile.{module}")
    for table, harmless in ((REFUSED, False), (HARMLESS, True), (EITHER, None)):
        for name, attack in table.items():
            yield base_case("bases", name, attack, harmless)


def base_case(kind: str, name: str, attack: Attack, harmless: bool | None, limits: Limits = LIMITS) -> Case:
    """`harmless`: False must be refused, True may also give the model of the good folder, None any model.

    None is of what may be taken, since it says what the folder is.
    """

    def run(place: Place) -> list[Result]:
        return [tried(place, name, attack, harmless, limits)]

    return Case(kind, name, run)


def tried(place: Place, name: str, attack: Attack, harmless: bool | None, limits: Limits) -> Result:
    """The stage `base` on a good base that was attacked, its hash given as a user would who trusts it."""
    from tuneline.runtime.hashing import folder_sha256

    project, source = place.copy(), place.folder / "bases/tiny"
    shutil.copytree(place.project.parent / "bases/tiny", source)
    attack(source)
    try:
        digest = folder_sha256(source)
    except (OSError, ValueError):
        digest = "0" * 64
    set_params(project, base={"source": str(source), "sha256": digest})
    remove_outputs(project, "base")
    run = place.run("base", project, limits)
    ran = [str(path) for path in place.folder.rglob("CODE_RAN")]
    if ran or "[y/N]" in run.stdout + run.stderr:
        return Result(name, Outcome.SILENT, f"code of the folder ran, or was asked about: {ran}")
    if failed := judge(name, run, "base"):
        kept = left_behind(project) or sorted(contents(project, outputs("base")))
        return Result(name, Outcome.SILENT, f"left behind {kept[:4]}") if kept else failed
    if harmless is None:
        return Result(name, Outcome.RIGHT)
    if not harmless:
        return Result(name, Outcome.SILENT, "accepted")
    return _same_model(name, contents(project, outputs("base")), place.reference("base"))


def _same_model(name: str, found: dict[str, bytes], expected: dict[str, bytes]) -> Result:
    """The model is the one without the attack; files beside it may be more."""
    kept = ("models/base/model.safetensors", "models/base/tokenizer.json")
    return compared(name, {file: found.get(file, b"") for file in kept}, {file: expected[file] for file in kept})


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
