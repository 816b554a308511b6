"""Command line of a training process: what the stage tells each process through DeepSpeed's launcher."""

import argparse
import base64
import json
from pathlib import Path
from typing import NamedTuple

from tuneline.runtime.params import parse
from tuneline.train.sections import TrainingConfig, load_config


class Paths(NamedTuple):
    """What a training process reads and writes."""

    tokens: Path
    base: Path
    scratch: Path
    """Folder of resume checkpoints."""
    curve: Path
    adapter: Path
    metrics: Path
    init: Path | None = None
    """Adapter to begin with."""
    records: Path | None = None
    """train.jsonl, where validation rows are answered."""


class Command(NamedTuple):
    config: TrainingConfig
    paths: Paths
    resume: Path | None
    """Checkpoint to go on from."""
    parent: int
    """Pid to end with; 0 is none."""


def to_arguments(command: Command) -> list[str]:
    """The sections go as one word of base64, which passes the shells of other hosts unquoted."""
    config = base64.urlsafe_b64encode(json.dumps(command.config.to_params()).encode()).decode()
    words = [f"--config={config}", f"--parent={command.parent}"]
    words += [f"--{name}={path}" for name, path in command.paths._asdict().items() if path is not None]
    return words + ([f"--resume={command.resume}"] if command.resume else [])


def from_arguments(words: list[str] | None = None, description: str | None = None) -> Command:
    """What `to_arguments` gave; of this process without `words`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="sections of params.yaml, as JSON in base64")
    parser.add_argument("--parent", type=int, required=True, help="pid to end with; 0 is none")
    for name in Paths._fields:
        parser.add_argument(f"--{name}", type=Path, required=name not in Paths._field_defaults)
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    options = vars(parser.parse_args(words))
    params = json.loads(base64.urlsafe_b64decode(options["config"]))
    config = load_config(lambda section: parse(section, params))
    return Command(config, Paths(*(options[name] for name in Paths._fields)), options["resume"], options["parent"])
