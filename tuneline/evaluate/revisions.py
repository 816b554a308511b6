"""Files of revisions and experiments, from git and DVC's cache (or remote), without checking anything out."""

from pathlib import Path

from tuneline.runtime.errors import sentence

PREDICTIONS = "metrics/predictions.jsonl"
REVIEWS = Path("reviews")
"""The folder of votes, of what lies here alone."""
WORKSPACE = "workspace"
"""The name of what lies here."""


def content(path: str, name: str) -> str:
    """Text of a file of a revision."""
    if name == WORKSPACE:
        if not Path(path).is_file():
            raise ValueError(f"{path} is missing: run `dvc repro evaluate`, or name two revisions")
        return Path(path).read_text(encoding="utf-8")
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        return str(dvc.api.read(path, rev=name, encoding="utf-8"))
    except (DvcException, FileNotFoundError) as error:
        if is_recorded(path, name):
            raise ValueError(
                f"{name}: {path} is recorded in its dvc.lock, but its content is in no cache here: if it was shared, get it "
                f"with `dvc fetch --all-commits` (an experiment with `dvc exp pull <remote> {name}`); else make it on this "
                'machine (`make repro` with its params.yaml), keep it with `git commit -am "Results"`, and compare that commit'
            ) from None
        raise ValueError(
            f"{name}: {path} can't be read ({sentence(error)}): expected a commit, branch, tag or experiment "
            "whose `evaluate` has run, and its data in DVC's cache or remote (`dvc pull`)"
        ) from None


def is_recorded(path: str, name: str) -> bool:
    """Whether dvc.lock of a revision names the file as an output."""
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        return f"path: {path}\n" in str(dvc.api.read("dvc.lock", rev=name, encoding="utf-8"))
    except (DvcException, FileNotFoundError):
        return False
