"""Where `tuneline release --push` sends a release, by a word of the command line, and what is checked and asked before."""

import re
import sys
from pathlib import Path

import typer

from tuneline.cli.push.contents import ReleaseFile, release_files, total
from tuneline.cli.push.privacy import private_content, unseen
from tuneline.cli.push.remote import Remote, push
from tuneline.cli.push.terms import check_terms

REPO = re.compile(r"(?:(?P<hub>hf|modelscope):)?(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)", re.ASCII)


def destination(text: str) -> Remote:
    """The repository of `owner/name`, `hf:owner/name` or `modelscope:owner/name`.

    Raises ValueError for other words, and where the hub's library or token is missing.
    """
    found = REPO.fullmatch(text)
    if not found:
        raise ValueError(f"--push is {text!r}, expected owner/name, or modelscope:owner/name")
    if found["hub"] == "modelscope":
        from tuneline.cli.push.modelscope import ModelScope

        return ModelScope(found["repo"])
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from tuneline.cli.push.hugging_face import HuggingFace

    if not sys.stderr.isatty():
        disable_progress_bars()
    return HuggingFace(found["repo"])


def push_release(folder: Path, remote: Remote, *, public: bool, replace: bool) -> str:
    """Check, ask where everybody will see it, push, and say what was done.

    Raises ValueError for what must not leave, a base whose terms forbid it, and a no.
    """
    files = release_files(folder)
    if found := list(private_content(files, Path())):
        raise ValueError(f"{folder} is not pushed: {'; '.join(found)}")
    for name in unseen(Path()):
        _tell(f"{name} is missing, so the release was not searched for its rows")
    if said := check_terms(files):
        _tell(said)
    if public:
        _ask(files, remote)
    return push(files, remote, public=public, replace=replace)


def _ask(files: list[ReleaseFile], remote: Remote) -> None:
    question = f"Everybody will see {total(files)} as {remote.repo} on {remote.place}. Push?"
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise ValueError("not pushed: --public was not confirmed; without it the repository is private")


def _tell(said: str) -> None:
    print(f"release: {said}", file=sys.stderr)
