"""Results in the workspace that an experiment would overwrite: in no commit, and in no experiment.

`dvc exp run` works in the workspace. What `dvc repro` left there uncommitted is then gone from `dvc exp show`, and nothing
can be compared with it; DVC does not mention it.
"""

import os
import subprocess
from pathlib import Path

EXPERIMENT = "DVC_EXP_BASELINE_REV"
"""DVC sets it for what an experiment runs."""


def refuse_to_overwrite(results: Path) -> None:
    """Raises ValueError when an experiment that runs in the workspace would overwrite results that are nowhere else."""
    if EXPERIMENT not in os.environ or not _in_workspace() or not is_unsaved(results):
        return
    raise ValueError(
        f"the results in {results} are in no commit and in no experiment, and this experiment would overwrite them: "
        'keep them with `git commit -am "First results"` or `dvc exp save -n first`, or run the experiment elsewhere with '
        "`dvc exp run --temp`; if they may go, `git checkout dvc.lock metrics` comes first"
    )


def _in_workspace() -> bool:
    # For `--temp` and the queue DVC names the project's own folder, and works in a copy.
    return Path(os.environ.get("DVC_ROOT", ".")).resolve() == Path.cwd()


def is_unsaved(results: Path) -> bool:
    """Whether a file that git tracks has a content that neither HEAD nor any experiment has; False outside of git."""
    if not results.is_file() or (here := _git("hash-object", str(results))) is None:
        return False
    experiments = _git("for-each-ref", "--format=%(objectname)", "refs/exps") or ""
    revisions = ["HEAD", *experiments.split()]
    names = "".join(f"{revision}:{results.as_posix()}\n" for revision in revisions)
    found = _git("cat-file", "--batch-check=%(objectname)", stdin=names)
    return found is not None and here.strip() not in {line.partition(" ")[0] for line in found.splitlines()}


def _git(*arguments: str, stdin: str = "") -> str | None:
    """What git printed; None when it failed or is not there."""
    try:
        result = subprocess.run(["git", *arguments], input=stdin, capture_output=True, text=True, check=False)  # noqa: S607
    except OSError:
        return None
    return None if result.returncode else result.stdout
