"""Experiments of DVC that a study starts and finds again: each in a temporary folder, its result an entry of `dvc exp show`."""

import ctypes
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tuneline.evaluate.revisions import PREDICTIONS, content
from tuneline.runtime.git import git
from tuneline.runtime.params import PARAMS, read_yaml
from tuneline.study.plan import Run, experiment_name

TARGET = "evaluate"
"""The last stage that a run needs: a model is merged when it is chosen."""
TEMPORARY = Path(".dvc/tmp/exps")
"""Where DVC runs those that are not in the workspace."""
NOT_RESULTS = ("apply", "celery", "exec", "temp", "stash")
"""Of git's references below refs/exps, what is DVC's own bookkeeping."""
DETAILS = "metrics/eval_details.json"
COUNTS = "metrics/tokenize.json"
SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class Started(NamedTuple):
    """A run that goes on."""

    run: Run
    process: "subprocess.Popen[bytes]"
    log: Path
    begun: float


def finished(study: str, runs: Sequence[Run]) -> dict[str, str]:
    """{key: revision} of the runs whose experiments are there, whatever commit they are of."""
    there = {}
    for line in git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines():
        revision, _, name = line.partition(" ")
        parts = name.split("/")
        if parts[2] not in NOT_RESULTS:
            there[parts[-1]] = revision
    return {run.key: there[name] for run in runs if (name := experiment_name(study, run)) in there}


def start(study: str, run: Run, log: Path, devices: Mapping[str, str], environment: Mapping[str, str]) -> Any:
    """Begin a run in a temporary folder; it ends with this process, however that ends. `devices` are variables."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", experiment_name(study, run)]
    for override in run.overrides:
        command += ["--set-param", override]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [*command, TARGET],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**environment, **devices},
            preexec_fn=partial(_die_with_parent, ctypes.CDLL(None)),
        )


def _die_with_parent(library: Any) -> None:
    """DVC ends with this process, and what a stage runs ends with DVC."""
    library.prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def remove_leftovers(runs: Sequence[Run]) -> int:
    """Remove the temporary folders of these runs that a kill left, and nobody works in; returns how many."""
    wanted = {json.dumps(run.document, sort_keys=True) for run in runs}
    used = {Path(place) for process in psutil.process_iter() if (place := _folder_of(process))}
    removed = 0
    for params in [*TEMPORARY.glob("*/params.yaml"), *TEMPORARY.glob("*/*/params.yaml")]:
        folder = params.parent.resolve()
        if any(one.is_relative_to(folder) for one in used):
            continue
        with suppress(ValueError, OSError):
            if _document(folder / PARAMS) in wanted:
                shutil.rmtree(folder)
                removed += 1
    return removed


def _document(path: Path) -> str:
    """Of a run that was begun, with what is a default there written out."""
    document = read_yaml(path)
    document["data"].setdefault("train_share", 1.0)
    return json.dumps(document, sort_keys=True)


def _folder_of(process: psutil.Process) -> str:
    try:
        return str(process.cwd())
    except (psutil.Error, OSError):
        return ""


def read_rows(revision: str) -> list[dict[str, Any]]:
    """Lines of predictions.jsonl of a revision. Raises ValueError where DVC's cache does not have them."""
    return [json.loads(line) for line in content(PREDICTIONS, revision).split("\n") if line]


def own_metrics(revision: str) -> dict[str, Any]:
    """The project's metrics of a revision, by name, as eval_details.json describes them."""
    return dict(json.loads(content(DETAILS, revision)).get("own", {}))


def training_rows(revision: str) -> int:
    """Rows that a run trained on in an epoch."""
    counts = json.loads(git("show", f"{revision}:{COUNTS}"))
    return int(counts["rows_per_epoch"])
