"""A folder for the pipeline's own stages to run in, beside the project: its code and its base, other data and params."""

import socket
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
"""Environment of a training process that runs without a launcher; MASTER_PORT is to be added."""


def make(folder: Path, base: Path) -> None:
    for name in ("models", "data/raw", "data/processed", "metrics"):
        (folder / name).mkdir(parents=True)
    (folder / "models/base").symlink_to(base)
    for name in ("tuneline", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)


def write_params(folder: Path, *changes: dict[str, dict[str, Any]]) -> None:
    """The shipped params with changes, section by section; later ones win."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for change in changes:
        for section, values in change.items():
            params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(probe.getsockname()[1])
