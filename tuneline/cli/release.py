"""`tuneline release`: a folder to hand out."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneline.cli.push.destination import destination, push_release
from tuneline.cli.push.terms import add_notice
from tuneline.export.sbom import write_sbom
from tuneline.export.verify import problems
from tuneline.formats.json_object import json_object
from tuneline.models.loading import BASE, MERGED
from tuneline.runtime.atomic import atomic_output, to_json
from tuneline.runtime.git import git
from tuneline.runtime.hashing import write_sums
from tuneline.runtime.machine import library_versions
from tuneline.runtime.params import read_yaml

LLAMA_CPP = "LLAMA_CPP"
LINEAGE = "release.json"
HELDOUT = Path("data/processed/heldout.jsonl")


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("release")
def main(
    to: Annotated[Path, typer.Option(help="The folder to make; it must not exist yet.")] = Path("release"),
    gguf: Annotated[bool, typer.Option("--gguf", help="Also write a GGUF file and an Ollama Modelfile.")] = False,
    llama_cpp: Annotated[
        Path | None, typer.Option(help=f"Your own checkout of llama.cpp (or ${LLAMA_CPP}), instead of a pinned one.")
    ] = None,
    dirty: Annotated[bool, typer.Option("--dirty", help="Even if the project has uncommitted changes.")] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="REPO", help="Also push it: owner/name on the Hugging Face Hub, or modelscope:owner/name."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Push for everybody to see, after a confirmation; otherwise private.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Push even if the repository holds something else.")
    ] = False,
) -> None:
    """Make the folder to hand out: the merged model, with its commit, data revision and library versions.

    The merged model itself holds no commit and no time, so that the same inputs give the same bytes; here they are added.
    With --push, a folder that was made before is pushed as it is, if it is whole and of the present model.
    """
    if (public or replace) and not push:
        raise ValueError("--public and --replace say how to push, expected --push owner/name beside them")
    # Before the folder is made, which takes its time: no library, no token, a repository that can't be.
    remote = destination(push) if push else None
    if remote and to.exists():
        check_present(to, gguf=gguf)
    else:
        release(to, partial(add_gguf, llama_cpp) if gguf else None, dirty=dirty)
        print(f"release: {to} is ready; `tuneline verify {to}` checks it anywhere")
    if remote:
        print(f"release: {push_release(to, remote, public=public, replace=replace)}")


def check_present(folder: Path, *, gguf: bool) -> None:
    """Raises ValueError unless a folder is a whole release of the project's present model, with a GGUF file if it should."""
    if found := problems(folder):
        raise ValueError(
            f"{folder} is there already, and no whole release: {'; '.join(found)}; remove it, or name another"
        )
    if gguf and not any(folder.glob("*.gguf")):
        raise ValueError(f"{folder} is there already, without a GGUF file: remove it, or name another with --to")
    made = json_object(folder / LINEAGE) if (folder / LINEAGE).is_file() else {}
    if Path("dvc.lock").is_file() and made.get("dvc_md5") != (present := model_md5()):
        raise ValueError(
            f"{folder} is there already, with another model ({made.get('dvc_md5')}) than the project's ({present}): remove it, "
            "or name another with --to"
        )


def release(folder: Path, convert: Callable[[Path, str], None] | None, *, dirty: bool) -> None:
    """Raises ValueError when the merged model is not whole, not of this commit, or the folder is there already."""
    if folder.exists():
        raise ValueError(f"{folder} is there already, expected a folder to be made: name another with --to")
    if found := problems(MERGED):
        mending = "; run `dvc repro`" if MERGED.is_dir() else ""
        raise ValueError(f"{MERGED} can't be handed out: {'; '.join(found)}{mending}")
    facts = origin(dirty=dirty)
    with atomic_output(folder) as unfinished:
        shutil.copytree(MERGED, unfinished)
        (unfinished / LINEAGE).write_text(to_json(facts), encoding="utf-8")
        with (unfinished / "README.md").open("a", encoding="utf-8") as card:
            card.write(section(facts))
        add_notice(unfinished)
        if convert:
            convert(unfinished, folder.resolve().name)
        made = datetime.fromisoformat(git("show", "-s", "--format=%cI", "HEAD").strip())
        write_sbom(unfinished, folder.resolve().name, facts["commit"], made)
        write_sums(unfinished)
        if found := problems(unfinished):
            raise ValueError(f"the copy is not whole: {'; '.join(found)}")


def origin(*, dirty: bool) -> dict[str, Any]:
    """Commit, DVC's hash of the model, and versions. Raises ValueError when files and commit are not of one another."""
    changed = git("status", "--porcelain").splitlines()
    if changed and not dirty:
        raise ValueError(
            f"{len(changed)} files are not committed, first {changed[0][3:]!r}: commit them, or say --dirty"
        )
    stale = pipeline_status()
    if stale and not dirty:
        raise ValueError(
            f"the pipeline is not up to date ({', '.join(stale)}): run `dvc repro` and commit, or say --dirty"
        )
    return {
        "commit": git("rev-parse", "HEAD").strip(),
        "dirty": bool(changed or stale),
        "dvc_md5": model_md5(),
        "python": platform.python_version(),
        "versions": library_versions(),
    }


def model_md5() -> str:
    """DVC's hash of the merged model."""
    lock = read_yaml(Path("dvc.lock"))
    (merged,) = (out for out in lock["stages"]["export"]["outs"] if out["path"] == MERGED.as_posix())
    return str(merged["md5"])


def pipeline_status() -> list[str]:
    """Stages that `dvc repro export` would run."""
    from dvc.repo import Repo

    with Repo(".") as project:
        return sorted(project.status(targets=["export"], with_deps=True))


def section(facts: dict[str, Any]) -> str:
    """What the card says of the release."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    state = " with changes that were not committed" if facts["dirty"] else ""
    return (
        f"\n## This release\n\nCommit `{facts['commit']}`{state}; DVC's hash of the model `{facts['dvc_md5']}`; "
        f"Python {facts['python']}, {versions}.\n"
    )


def add_gguf(llama_cpp: Path | None, folder: Path, name: str) -> None:
    """The model as `name`.gguf, and a Modelfile beside it. Raises ValueError with the converter's last words."""
    from tuneline.export.gguf.conversion import to_gguf
    from tuneline.export.gguf.converter import find_converter
    from tuneline.export.gguf.ollama import write_modelfile

    own = llama_cpp or (Path(os.environ[LLAMA_CPP]) if os.environ.get(LLAMA_CPP) else None)
    said = to_gguf(find_converter(own), folder, BASE, folder / f"{name}.gguf", "bf16")
    for sentence in [*said, *write_modelfile(folder, f"{name}.gguf", BASE, HELDOUT)]:
        print(f"release: {sentence}", file=sys.stderr)
