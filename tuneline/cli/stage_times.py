"""What each stage took the last time it ran, as a table.

python -m tuneline.cli.stage_times
"""

import argparse
import json
from pathlib import Path

import yaml

SPEED = Path("metrics/speed")


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tuneline.cli.stage_times",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    print(table({name: json.loads(path.read_text()) for name in stages if (path := SPEED / f"{name}.json").exists()}))


def table(facts: dict[str, dict[str, float]]) -> str:
    """One line a stage, and the sum."""
    lines = [f"{'stage':<14}{'seconds':>9}{'peak GB':>9}"]
    lines += [f"{name:<14}{row['wall_seconds']:>9.1f}{row['peak_memory_gb']:>9.2f}" for name, row in facts.items()]
    peak = max((row["peak_memory_gb"] for row in facts.values()), default=0)
    lines.append(f"{'total':<14}{sum(row['wall_seconds'] for row in facts.values()):>9.1f}{peak:>9.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
