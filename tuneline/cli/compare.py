"""Is one model better than another? The held-out answers of git revisions or DVC experiments, item by item.

    python -m tuneline.cli.compare main                    the workspace against main
    python -m tuneline.cli.compare main exp-a exp-b        two experiments, each against main
    python -m tuneline.cli.compare main exp-a --markdown

Reads metrics/predictions.jsonl and metrics/eval.json of each revision from git and DVC's cache (or remote), without checking
anything out. Answers to other held-out items, or scores by other definitions, are not compared.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PREDICTIONS = "metrics/predictions.jsonl"
METRICS = "metrics/eval.json"
WORKSPACE = "workspace"
SHOWN = 5


class Side(NamedTuple):
    """What one revision's tuned model said."""

    name: str
    rows: dict[str, dict[str, Any]]
    """Lines of predictions.jsonl by id."""
    versions: dict[str, int]
    """Of the metrics."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tuneline.cli.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "revisions", nargs="+", metavar="REV", help="commit, branch, tag or experiment; `workspace` is what lies here"
    )
    parser.add_argument("--common", action="store_true", help="compare the items that both have, when sets differ")
    parser.add_argument("--items", type=int, default=SHOWN, help=f"items that changed most to show (default {SHOWN})")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true")
    form.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.revisions if len(options.revisions) > 1 else [*options.revisions, WORKSPACE]
    try:
        sides = [read(name) for name in names]
        found = [against(sides[0], other, common=options.common) for other in sides[1:]]
    except (ValueError, OSError) as error:
        sys.exit(f"compare: {' '.join(str(error).split())}")
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(shown(one, options.items, markdown=options.markdown) for one in found))


def read(name: str) -> Side:
    """Raises ValueError for a revision that is not there, or has no answers within reach."""
    rows = [json.loads(line) for line in content(PREDICTIONS, name).split("\n") if line]
    versions = json.loads(content(METRICS, name)).get("versions", {})
    return Side(name, {row["id"]: row for row in rows}, versions)


def content(path: str, name: str) -> str:
    """Text of a file of a revision."""
    if name == WORKSPACE:
        if not Path(path).is_file():
            raise ValueError(f"{path} is missing: run `dvc repro evaluate`, or name two revisions")
        return Path(path).read_text(encoding="utf-8")
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        return str(dvc.api.read(path, rev=name, encoding="utf-8"))
    except (DvcException, FileNotFoundError) as error:
        raise ValueError(
            f"{name}: {path} can't be read ({' '.join(str(error).split())}): expected a commit, branch, tag or experiment "
            "whose `evaluate` has run, and its data in DVC's cache or remote (`dvc pull`)"
        ) from None


def against(first: Side, second: Side, *, common: bool = False) -> dict[str, Any]:
    """{"base", "tuned", "items", "metrics", "smallest", "changes"} of the second's tuned model against the first's.

    Raises ValueError when the two were asked other questions, or scored by other definitions.
    """
    from tuneline.evaluate.compare import compare
    from tuneline.evaluate.metrics.metrics import METRICS as KNOWN
    from tuneline.evaluate.report import headline
    from tuneline.evaluate.statistics import smallest_difference

    for side in (first, second):
        tasks = {row["task"] for row in side.rows.values()}
        known = {name: one.version for name, one in KNOWN.items() if one.task is None or one.task in tasks}
        if other := sorted(name for name, version in known.items() if side.versions.get(name) != version):
            raise ValueError(
                f"{side.name} was scored by other definitions of {', '.join(other)}: "
                "run `dvc repro evaluate` there with this code"
            )
    both = [key for key, row in first.rows.items() if key in second.rows and asked(row) == asked(second.rows[key])]
    apart = len(first.rows) + len(second.rows) - 2 * len(both)
    if apart and not (common and both):
        raise ValueError(
            f"{first.name} and {second.name} have other held-out items ({len(first.rows)} and {len(second.rows)}, "
            f"{len(both)} in common): no comparison of sets that differ; leave data.heldout, data.seed and the sources alone, "
            "or compare the items that both have with --common"
        )
    rows = [joined(first.rows[key], second.rows[key]) for key in both]
    metrics = compare(rows)
    name = headline(metrics)
    score = name if KNOWN[name].figure is None else "rouge_l"
    changes = [
        {
            "id": row["id"],
            "question": row["question"],
            score: [row["scores"][side][score] for side in ("base", "tuned")],
        }
        for row in rows
    ]
    changes.sort(key=lambda one: (-abs(one[score][1] - one[score][0]), one["id"]))
    smallest = {key: smallest_difference(delta["low"], delta["high"]) for key, delta in metrics["delta"].items()}
    return {
        "base": first.name,
        "tuned": second.name,
        "items": len(rows),
        "left_out": apart,
        "metrics": {key: metrics[key] for key in ("base", "tuned", "delta")},
        "smallest": smallest,
        "score": score,
        "changes": changes,
    }


def asked(row: dict[str, Any]) -> tuple[Any, ...]:
    """What must be alike for two answers to be compared."""
    return row["task"], row["question"], tuple(row["references"])


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One row of both tuned answers, the first in the base's place."""
    same = {key: first[key] for key in ("id", "task", "question", "references")}
    scores = {"base": first["scores"]["tuned"], "tuned": second["scores"]["tuned"]}
    return same | {"base": first["tuned"], "tuned": second["tuned"], "scores": scores}


def shown(found: dict[str, Any], most: int, *, markdown: bool) -> str:
    from tuneline.evaluate.metrics.metrics import METRICS as KNOWN

    left = f" ({found['left_out']} that only one of them has are left out)" if found["left_out"] else ""
    title = f"{found['tuned']} against {found['base']}: {found['items']} items{left}"
    columns = (
        "metric",
        found["base"],
        found["tuned"],
        "difference",
        "95 % interval",
        "p",
        "won/tied/lost",
        "would show",
    )
    lines: list[Sequence[str]] = [columns]
    for name, delta in found["metrics"]["delta"].items():
        values = (f"{found['metrics'][side][name]['value']:.2f}" for side in ("base", "tuned"))
        interval = f"{delta['low']:+.2f} … {delta['high']:+.2f}"
        least = found["smallest"][name]
        record = f"{delta['wins']}/{delta['ties']}/{delta['losses']}"
        cells = (f"{delta['value']:+.2f}", interval, f"{delta['p']:.4f}", record, f"{least:.2f}" if least else "—")
        lines.append((KNOWN[name].title, *values, *cells))
    changes: list[Sequence[str]] = [("id", KNOWN[found["score"]].title, "question")]
    for one in found["changes"][:most]:
        before, after = one[found["score"]]
        question = " ".join(one["question"].split())
        changes.append((one["id"], f"{before:.1f} → {after:.1f}", question[:48] + ("…" if len(question) > 48 else "")))
    note = "would show: the smallest difference that this many items show in four of five cases"
    parts = [f"## {title}" if markdown else title, table(lines, markdown=markdown), note]
    parts += ["Changed most:", table(changes, markdown=markdown)]
    return "\n\n".join(parts)


def table(lines: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Columns aligned; the last one may hold text of any width."""
    if markdown:
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:-1], widths[1:-1]), line[-1]]) for line in lines
    )


if __name__ == "__main__":
    main()
