"""What dvc.yaml says that stages read and write, and what dvc.lock says of the content."""

import json
from pathlib import Path
from typing import Any, NamedTuple

MAP, LOCK = Path("dvc.yaml"), Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")


class Output(NamedTuple):
    path: Path
    stage: str
    cached: bool
    """Whether DVC keeps it; else git does."""


def stage_names() -> list[str]:
    """Names of the stages in the order of dvc.yaml; none where there is no such file."""
    return list(_stages(MAP))


def description_of(stage: str) -> str:
    """The `desc` of a stage; empty where it has none."""
    return str(_stages(MAP).get(stage, {}).get("desc", ""))


def inputs_of(stage: str) -> list[Path]:
    """Dependencies of a stage, without its code; none where dvc.yaml has no such stage."""
    deps = _stages(MAP).get(stage, {}).get("deps", [])
    return [Path(dep) for dep in deps if not dep.startswith("code/")] if stage != "code" else []


def outputs() -> list[Output]:
    """Outputs of all stages."""
    found = []
    for stage, entry in _stages(MAP).items():
        for listed in (*entry.get("outs", ()), *entry.get("metrics", ()), *entry.get("plots", ())):
            path, options = (listed, {}) if isinstance(listed, str) else next(iter(listed.items()))
            found.append(Output(Path(path), stage, options.get("cache") != "false"))
    return found


def read_later(stage: str) -> set[Path]:
    """Outputs of a stage that others read."""
    read = [Path(dep) for entry in _stages(MAP).values() for dep in entry.get("deps", ())]
    made = [output.path for output in outputs() if output.stage == stage]
    return {path for path in made if any(path.is_relative_to(dep) for dep in read)}


def locked(output: Output) -> str | None:
    """The MD5 of an output in dvc.lock, of a folder with `.dir` behind it; None where it has none."""
    for entry in _stages(LOCK).get(output.stage, {}).get("outs", ()):
        if entry.get("path") == output.path.as_posix() and entry.get("hash") == "md5":
            return entry.get("md5")
    return None


def locked_files(digest: str) -> dict[str, str]:
    """{file: MD5} of a folder in dvc.lock, from DVC's cache; {} where the cache is elsewhere."""
    path = CACHE / digest[:2] / digest[2:]
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {entry["relpath"]: entry["md5"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stages(path: Path) -> dict[str, Any]:
    """Stages of either file; every value is text, as it is written there."""
    if not path.is_file():
        return {}
    import yaml

    try:
        # An MD5 of digits alone is no number; libyaml's own reader is quick.
        document = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    stages = document.get("stages") if isinstance(document, dict) else None
    return stages if isinstance(stages, dict) else {}
