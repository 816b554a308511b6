"""One byte changed in an input of a stage, or the input cut, emptied, gone, a folder or unreadable; the stage run directly.

Inputs are what another stage or DVC's lists vouch for: the user's own raw files are whatever they are.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.cases import LIVE, Case, Place
from benchmarks.faults.finished import MAP, STAGES, contents, outputs, remove_outputs, set_params
from benchmarks.faults.forked import Limits
from benchmarks.faults.outcomes import Outcome, Result, judge

UNVOUCHED = ("data/raw/medical.csv",)
"""The user's own."""


def flip(place: float) -> Callable[[Path], None]:
    """Change the byte at that share of the file; a letter stays a letter where it can, so that the form may stay right."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            content[min(int(place * len(content)), len(content) - 1)] ^= 0x01
        path.write_bytes(content or b"\x01")

    return change


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], None]] = {
    "first": flip(0.0),
    "third": flip(0.33),
    "middle": flip(0.5),
    "last": flip(1.0),
    "cut": cut,
    "empty": empty,
    "folder": into_folder,
    "unreadable": lambda path: path.chmod(0),
    "gone": lambda path: path.unlink(),
}


def cases(project: Path) -> Iterator[Case]:
    """All changes of each file of each stage."""
    for stage in STAGES:
        for file in inputs(stage, project):

            def attack(place: Place, stage: str = stage, file: str = file) -> list[Result]:
                return [changed(place, stage, file, change) for change in CHANGES]

            yield Case("bytes", f"{stage}:{file}", attack)


def inputs(stage: str, project: Path) -> list[str]:
    """Files that a stage reads, but code and params.yaml; of `base` and `fetch` also where they take their data from."""
    files = sorted(contents(project, [name for name in MAP[stage]["deps"] if name not in ("stages", "tuneline")]))
    if stage in ("base", "fetch"):
        beside = project.parent / ("bases/tiny" if stage == "base" else "wheels")
        files += sorted(f"../{path.relative_to(project.parent)}" for path in beside.rglob("*") if path.is_file())
    return [file for file in files if file not in UNVOUCHED]


def changed(place: Place, stage: str, file: str, change: str) -> Result:
    name = f"{stage}:{file}:{change}"
    project = place.copy(change)
    path = project / file
    if file.startswith("../"):
        path = _copied_source(place, project, stage, file)
    if file.endswith("SHA256SUMS") and change == "gone" and stage == "base":
        return Result(name, Outcome.SAME)
    CHANGES[change](path)
    remove_outputs(project, stage)
    run = place.run(stage, project, Limits(120, unprivileged=True))
    names = [file.removeprefix("../"), path.name]
    if stage == "base" and change == "gone":
        # Whatever its name was: a base without any weights is none.
        names.append(f"expected config.json and *{path.suffix}")
    if failed := judge(name, run, stage, names):
        return failed
    found, expected = contents(project, outputs(stage)), place.reference(stage)
    other = [one for one in expected if found.get(one) != expected[one] and one not in LIVE]
    return Result(name, Outcome.SILENT, f"other bytes: {other[:5]}") if other else Result(name, Outcome.SAME)


def _copied_source(place: Place, project: Path, stage: str, file: str) -> Path:
    """The file within a copy of the folder that the stage takes its data from."""
    import shutil

    source, name = place.project / file, place.folder / f"{project.name}-{Path(file).parts[1]}"
    shutil.copytree(source.parent, name)
    if stage == "base":
        set_params(project, base={"source": str(name)})
    return name / source.name
