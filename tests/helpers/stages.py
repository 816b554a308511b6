"""Stages run in this process, and a training process without DeepSpeed's launcher."""

from functools import cache
from pathlib import Path
from types import ModuleType

from tests.helpers.paths import ROOT
from tuneline.runtime.code import code_lists, list_path, to_text
from tuneline.runtime.params import load
from tuneline.runtime.stage import Stage
from tuneline.train.process_arguments import Command, Paths, to_arguments
from tuneline.train.sections import TrainingConfig, load_config

PATHS = Paths(
    tokens=Path("data/processed/tokens.safetensors"),
    base=Path("models/base"),
    scratch=Path("scratch"),
    curve=Path("metrics/loss.csv"),
    adapter=Path("models/adapter"),
    metrics=Path("metrics/train.json"),
)
"""Of a training process in a project's folder."""


def run_main(module: ModuleType) -> Stage:
    """Call a stage's main() in the working directory, without a list of its code."""
    stage = Stage(module.__name__.rpartition(".")[2], code={})
    module.main(stage)
    return stage


@cache
def lists() -> dict[str, dict[str, str]]:
    return code_lists(ROOT)


def write_code_lists(folder: Path) -> None:
    """What the stage `code` writes, for the code as it is now."""
    for stage, files in lists().items():
        path = folder / list_path(stage)
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_text(files), encoding="utf-8")


def link_code(folder: Path) -> None:
    """Let `python -m stages.…` run in a folder that is no copy of the project."""
    for name in ("dvc.yaml", "evaluation", "stages", "tuneline"):
        (folder / name).symlink_to(ROOT / name)
    write_code_lists(folder)


def training_words(resume: str | None = None) -> list[str]:
    """Arguments of tuneline.train.run in the working directory."""
    return to_arguments(Command(load_config(load), PATHS, Path(resume) if resume else None, parent=0))


def too_fast(config: TrainingConfig) -> TrainingConfig:
    """A learning rate of 10 as 1e30, which params.yaml may not have: the second step then has values that are no numbers."""
    rate = 1e30 if config.train.learning_rate == 10 else config.train.learning_rate
    return config._replace(train=config.train.model_copy(update={"learning_rate": rate}))
