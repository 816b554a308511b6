"""What a run of the pipeline made and ran, and changes of its parameters."""

import json
import subprocess
from pathlib import Path

import yaml


def load(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def ran(result: subprocess.CompletedProcess) -> list[str]:
    """Stages that dvc really ran, in order."""
    return [line.split("'")[1] for line in result.stdout.splitlines() if line.startswith("Running stage")]


def set_param(folder: Path, section: str, **values) -> None:
    document = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    document[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
