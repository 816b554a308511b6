"""Plan of a study: its runs, each with a key of everything that determines its result, by which it is found again."""

import copy
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.runtime.code import all_code
from tuneline.runtime.hashing import file_sha256
from tuneline.runtime.params import PARAMS, S, parse, read_params, read_yaml
from tuneline.sections import check_sections
from tuneline.study.space import Changes

FOLDER = Path("studies")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
INPUTS = ("dvc.yaml", "data/raw", "evaluation")
"""What determines results, beside parameters and code."""
SHARE = "data.train_share"
HELDOUT = ("seed", "heldout", "heldout_source", "heldout_turns", "sources")
"""Keys of `data` that choose the held-out items."""
DIGITS = 10
"""Of a run's key in the name of its experiment."""


class Run(NamedTuple):
    """One training and evaluation: a configuration, a share of the training rows, a seed."""

    configuration: Changes
    """Empty for the parameters as they are, which the others are compared with."""
    share: float
    seed: int
    key: str
    document: dict[str, Any]
    """params.yaml of the run."""
    overrides: tuple[str, ...]
    """What `dvc exp run -S` takes."""


def make_runs(configurations: Sequence[Changes], shares: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """Every seed with every share and configuration, one seed after the other, so that what was begun is whole soon.

    The parameters as they are come first. Runs that come to the same parameters are one. Raises ValueError for parameters that
    no stage would take.
    """
    check_keys({name for changes in configurations for name, _ in changes})
    params, made_of = read_params(), inputs_digest()
    documents = {changes: changed(changes) for changes in dict.fromkeys([(), *configurations])}
    runs: dict[str, Run] = {}
    for seed in seeds:
        for share in sorted(shares, reverse=True):
            for changes, document in documents.items():
                run = make_run(changes, share, seed, with_seed(document, share, seed), params, made_of)
                runs.setdefault(run.key, run)
    for document in {json.dumps(run.document, sort_keys=True): run.document for run in runs.values()}.values():
        check(document)
    return list(runs.values())


def check_keys(keys: Iterable[str]) -> None:
    """Raises ValueError for a parameter that has an option of its own, or that would give runs other held-out items."""
    options = {"train.seed": "--seeds", SHARE: "--shares"}
    for key in sorted(keys):
        section, name, *_ = key.split(".")
        if key in options:
            raise ValueError(f"-S {key} is given, expected {options[key]} for it")
        if section == "data" and name in HELDOUT:
            raise ValueError(
                f"-S {key} is given and chooses the held-out items, which a study's runs share: expected other parameters, and "
                f"data.{name} set in {PARAMS} for all runs"
            )


def make_run(
    changes: Changes, share: float, seed: int, document: dict[str, Any], params: dict[str, Any], made_of: str
) -> Run:
    """A run with its key; `params` are those of the workspace, and `made_of` is the digest of code and data."""
    key = hashlib.sha256((made_of + json.dumps(document, sort_keys=True)).encode()).hexdigest()
    overrides = [f"{name}={value}" for name, value in changes]
    if document["train"]["seed"] != params["train"]["seed"]:
        overrides.append(f"train.seed={seed}")
    if share != params["data"].get("train_share", 1.0):
        # Parameters of an earlier version have no such key.
        overrides.append(f"{'' if 'train_share' in params['data'] else '+'}{SHARE}={share!r}")
    return Run(changes, share, seed, key, document, tuple(overrides))


def changed(changes: Changes) -> dict[str, Any]:
    """params.yaml with the changes, read as DVC reads them. Raises ValueError for a key that it does not have."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    if not changes:
        return read_params()
    overrides = [f"{key}={value}" for key, value in changes]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS
        path.write_bytes(PARAMS.read_bytes())
        try:
            apply_overrides(path, overrides)
        except DvcException as error:
            raise ValueError(
                f"-S {' '.join(overrides)}: {error.__cause__ or error}, expected keys of {PARAMS}"
            ) from None
        return dict(read_yaml(path))


def with_seed(document: dict[str, Any], share: float, seed: int) -> dict[str, Any]:
    result = copy.deepcopy(document)
    result["train"]["seed"] = seed
    result["data"]["train_share"] = share
    return result


def check(document: dict[str, Any]) -> None:
    """Raises ValueError for what a stage would refuse, before an hour has passed."""

    def load(section: type[S]) -> S:
        return parse(section, document)

    check_sections(load)


def inputs_digest() -> str:
    """Of the code of all stages, and of the files of INPUTS that git knows or may know.

    A file that DVC tracks counts by its .dvc file.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *INPUTS]
    found = subprocess.run(listed, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ValueError(f"{Path.cwd()} is in no git repository, expected one: experiments are kept in git")
    paths = sorted({Path(name) for name in found.stdout.split("\0") if name})
    lines = [f"{digest}  {name}" for name, digest in sorted(all_code().items())]
    lines += [f"{file_sha256(path)}  {path}" for path in paths if path.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def experiment_name(study: str, run: Run) -> str:
    return f"{study}-{run.key[:DIGITS]}"


def check_name(name: str) -> str:
    """Raises ValueError for a name that no experiment, branch or file could have."""
    if not NAME.fullmatch(name):
        raise ValueError(f"--name is {name!r}, expected up to 41 letters, digits, - and _, a letter or digit first")
    return name


def title(changes: Changes) -> str:
    """A configuration in words."""
    return ", ".join(f"{key.partition('.')[2]}={value}" for key, value in changes) or "as in params.yaml"


def describe(run: Run) -> str:
    """A run in words."""
    return f"seed {run.seed}, {run.share:.4g} of the rows, {title(run.configuration)}"


def write_plan(study: str, asked: dict[str, Any], runs: Sequence[Run]) -> Path:
    """studies/NAME.yaml: what was asked, and the experiment of each run, for git; returns its path."""
    import yaml

    rows = [
        {
            "experiment": experiment_name(study, run),
            "seed": run.seed,
            "share": run.share,
            "changes": dict(run.configuration),
        }
        for run in runs
    ]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{study}.yaml"
    path.write_text(
        yaml.safe_dump({"asked": asked, "runs": rows}, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    return path
