"""`tuneline times`: what each stage took when it last ran."""

import json
from pathlib import Path

import typer

from tuneline.runtime.params import read_yaml
from tuneline.runtime.stage import SPEED

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def times() -> None:
    """Show wall time and peak memory of each stage's last run, as a table."""
    map_ = Path("dvc.yaml")
    if not map_.is_file():
        raise ValueError(f"{map_} was not found in {Path.cwd()}: run from the root of the project")
    paths = {stage: SPEED / f"{stage}.json" for stage in read_yaml(map_)["stages"]}
    print(table({stage: json.loads(path.read_text()) for stage, path in paths.items() if path.exists()}))


def table(runs: dict[str, dict[str, float]]) -> str:
    """One line a stage, and the sum."""
    lines = [f"{'stage':<14}{'seconds':>9}{'peak GB':>9}"]
    lines += [f"{name:<14}{row['wall_seconds']:>9.1f}{row['peak_memory_gb']:>9.2f}" for name, row in runs.items()]
    peak = max((row["peak_memory_gb"] for row in runs.values()), default=0)
    lines.append(f"{'total':<14}{sum(row['wall_seconds'] for row in runs.values()):>9.1f}{peak:>9.2f}")
    return "\n".join(lines)
