"""Results in the workspace that an experiment would overwrite: in no commit, and in no experiment.

`dvc exp run` works in the workspace. What `dvc repro` left there uncommitted is then gone from `dvc exp show`, and nothing
can be compared with it; DVC does not mention it.
"""

import os
import subprocess
from pathlib import Path

from tuneline.runtime.params import PARAMS, read_params, read_yaml

LOCK = Path("dvc.lock")
KEEP = 'git add dvc.lock metrics && git commit -am "First results"'
"""Those by name, because `git commit -a` leaves new files out."""
EXPERIMENT = "DVC_EXP_BASELINE_REV"
"""DVC sets it for what an experiment runs."""


def refuse_to_overwrite(results: Path) -> None:
    """Raises ValueError when an experiment that runs in the workspace would overwrite results that are nowhere else."""
    if EXPERIMENT not in os.environ or not _in_workspace() or not is_unsaved(results):
        return
    back = "; ".join(changed_params())
    raise ValueError(
        f"the results in {results} are in no commit and in no experiment, and this experiment would overwrite them: "
        + (f"set {PARAMS} back ({back}), " if back else "")
        + f"keep the results with `{KEEP}` or `dvc exp save -n first`, and run the experiment again"
    )


def changed_params() -> list[str]:
    """Each key of params.yaml that has another value than when the results were made, as `lora.r: 8 to 16`.

    DVC leaves what `-S` set in the file, also when the experiment fails.
    """
    if not LOCK.is_file():
        return []
    then = read_yaml(LOCK)["stages"].get("code", {}).get("params", {}).get(PARAMS.name, {})
    now = read_params()
    return [
        f"{section}.{key}: {now[section][key]} to {value}"
        for section, values in then.items()
        for key, value in values.items()
        if section in now and key in now[section] and now[section][key] != value
    ]


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
