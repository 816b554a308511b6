"""`tuneline compare`: paired comparison of the held-out answers of revisions or experiments."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

from tuneline.evaluate.revisions import PREDICTIONS, REVIEWS, WORKSPACE, content
from tuneline.formats.metrics import METRICS, current_names, known_metrics, main_metric

EVALUATION = "metrics/eval_details.json"
EARLIER_EVALUATION = "metrics/eval.json"
"""What held it in revisions of earlier versions."""
HELDOUT = "data/processed/heldout.jsonl"


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Revision(NamedTuple):
    """The tuned model's answers of one revision."""

    name: str
    rows: dict[str, dict[str, Any]]
    """Lines of predictions.jsonl by id."""
    versions: dict[str, Any]
    """Of the metrics."""
    own: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    """The user's own metrics, as eval_details.json describes them."""


@app.command("compare")
def main(
    revisions: Annotated[
        list[str], typer.Argument(help="Commit, branch, tag or experiment; `workspace` is what lies here.")
    ],
    common: Annotated[bool, typer.Option("--common", help="Compare the items in common, when sets differ.")] = False,
    items: Annotated[int, typer.Option(help="Items that changed most to show.")] = 5,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON.")] = False,
) -> None:
    """Compare the held-out answers of revisions or experiments with those of the first one, item by item.

    `tuneline compare main` compares the workspace with main, `tuneline compare main exp-a exp-b` two experiments, each with
    main. Reads metrics/predictions.jsonl and metrics/eval_details.json of each revision from git and DVC's cache (or remote),
    without checking anything out, and votes on these very answers from reviews/. Answers to other held-out items, or scores by
    other definitions, are not compared.
    """
    if markdown and as_json:
        raise ValueError("--markdown and --json are both given, expected one of them")
    names = revisions if len(revisions) > 1 else [*revisions, WORKSPACE]
    read_revisions = [read(name) for name in names]
    found = [against(read_revisions[0], other, common=common) for other in read_revisions[1:]]
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(to_text(comparison, items, markdown=markdown) for comparison in found))


def read(name: str) -> Revision:
    """Raises ValueError for a revision that is not there, or has no answers within reach."""
    rows = [json.loads(line) for line in content(PREDICTIONS, name).split("\n") if line]
    for row in rows:
        row["scores"] = {side: current_names(scores) for side, scores in row["scores"].items()}
    details = evaluation(name)
    by_id = {row["id"]: row for row in rows}
    return Revision(name, by_id, current_names(details.get("versions", {})), details.get("own", {}))


def heldout(name: str, answered: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Held-out items of a revision by id. Raises ValueError when one of the `answered` ids is not among them."""
    records = (json.loads(line) for line in content(HELDOUT, name).split("\n") if line)
    found = {record["id"]: record for record in records}
    if not found.keys() >= set(answered):
        raise ValueError(f"{HELDOUT} of {name} holds other items than {PREDICTIONS}: run `dvc repro evaluate`")
    return found


def evaluation(name: str) -> dict[str, Any]:
    """Metrics of a revision, with intervals and versions."""
    try:
        return dict(json.loads(content(EVALUATION, name)))
    except ValueError:
        earlier = json.loads(content(EARLIER_EVALUATION, name))
        if "tuned" not in earlier:
            # Today's figures: it is the details that are out of reach.
            raise
        return dict(earlier)


def against(first: Revision, second: Revision, *, common: bool = False) -> dict[str, Any]:
    """The second's tuned model against the first's: items, metrics, minimum detectable effects, and what changed most.

    Raises ValueError when the two hold answers to other questions, or scored by other definitions.
    """
    from tuneline.evaluate.compare import compare
    from tuneline.evaluate.own.revisions import own_of_both
    from tuneline.evaluate.review.figures import review_figures
    from tuneline.evaluate.review.pairs import pairs_of
    from tuneline.evaluate.review.votes import read_votes
    from tuneline.evaluate.slices.matrix import arrived_later, slices_of
    from tuneline.evaluate.statistics import minimum_detectable_effect

    for side in (first, second):
        tasks = {row["task"] for row in side.rows.values()}
        known = {name: metric.version for name, metric in METRICS.items() if metric.task in (None, *tasks)}
        if other := sorted(name for name, version in known.items() if side.versions.get(name) != version):
            raise ValueError(
                f"{side.name} was scored by other definitions of {', '.join(other)}: "
                "run `dvc repro evaluate` there with this code"
            )
    both = [
        key
        for key, row in first.rows.items()
        if key in second.rows and question_of(row) == question_of(second.rows[key])
    ]
    apart = len(first.rows) + len(second.rows) - 2 * len(both)
    # A slice that has arrived since leaves those before it whole: what is compared is no chance part of them.
    arrived = arrived_later(second.rows, first.rows) + arrived_later(first.rows, second.rows)
    if apart > arrived and not (common and both):
        raise ValueError(
            f"{first.name} and {second.name} have other held-out items ({len(first.rows)} and {len(second.rows)}, "
            f"{len(both)} in common): no comparison of sets that differ; leave data.heldout, data.seed and the sources alone, "
            "or compare the items that both have with --common"
        )
    rows = [join(first.rows[key], second.rows[key]) for key in both]
    names = first.name, second.name
    own, not_compared = own_of_both(names, (first.own, second.own), lambda: heldout(second.name, both))
    metrics = compare(rows, own=own)
    name = main_metric(metrics["delta"])
    score = name if not METRICS[name].corpus else "rouge_l"
    changes = [
        {
            "id": row["id"],
            "question": row["question"],
            score: [row["scores"][side][score] for side in ("base", "tuned")],
        }
        for row in rows
    ]
    changes.sort(key=lambda change: (-abs(change[score][1] - change[score][0]), change["id"]))
    detectable = {
        key: minimum_detectable_effect(delta["low"], delta["high"]) for key, delta in metrics["delta"].items()
    }
    return {
        "base": first.name,
        "tuned": second.name,
        "items": len(rows),
        "left_out": apart,
        "metrics": {key: metrics[key] for key in ("base", "tuned", "delta")},
        "minimum_detectable_effect": detectable,
        "own": {key: first.own[key] for key in own.metrics},
        "not_compared": not_compared,
        "slices": slices_of(rows),
        "score": score,
        "changes": changes,
        "review": review_figures(pairs_of(rows), read_votes(REVIEWS)),
    }


def question_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What must be alike for two answers to be compared."""
    return row["task"], row["question"], tuple(row["references"]), row.get("calls", {}).get("reference")


def join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One row of both tuned answers, the first in the base's place."""
    same = {key: first[key] for key in ("id", "task", "question", "references")}
    scores = {"base": first["scores"]["tuned"], "tuned": second["scores"]["tuned"]}
    joined = same | {"base": first["tuned"], "tuned": second["tuned"], "scores": scores, "since": second.get("since")}
    for key in ("calls", "call_faults", "call_errors"):
        if key in first:
            sides = {"base": first[key]["tuned"], "tuned": second[key]["tuned"]}
            joined[key] = sides | ({"reference": first[key]["reference"]} if key == "calls" else {})
    return joined


def to_text(found: dict[str, Any], most: int, *, markdown: bool) -> str:
    from tuneline.evaluate.slices.matrix import text_lines

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
        "MDE",
    )
    lines: list[Sequence[str]] = [columns]
    known = known_metrics(found)
    for name, delta in found["metrics"]["delta"].items():
        values = (f"{found['metrics'][side][name]['value']:.2f}" for side in ("base", "tuned"))
        interval = f"{delta['low']:+.2f} … {delta['high']:+.2f}"
        least = found["minimum_detectable_effect"][name]
        record = f"{delta['wins']}/{delta['ties']}/{delta['losses']}"
        cells = (f"{delta['value']:+.2f}", interval, f"{delta['p']:.4f}", record, f"{least:.2f}" if least else "—")
        lines.append((known[name].title, *values, *cells))
    changes: list[Sequence[str]] = [("id", METRICS[found["score"]].title, "question")]
    for change in found["changes"][:most]:
        before, after = change[found["score"]]
        question = " ".join(change["question"].split())
        changes.append(
            (change["id"], f"{before:.1f} → {after:.1f}", question[:48] + ("…" if len(question) > 48 else ""))
        )
    note = "MDE: minimum detectable effect, the smallest difference that this many items show in four of five cases"
    parts = [f"## {title}" if markdown else title, table(lines, markdown=markdown), note]
    parts += [f"Not compared: {'; '.join(found['not_compared'])}"] if found["not_compared"] else []
    if found["slices"]:
        names = (found["base"], found["tuned"])
        parts += ["By arrival:", table(text_lines(found["slices"], names), markdown=markdown)]
    parts += ["Changed most:", table(changes, markdown=markdown)]
    if found["review"]:
        from tuneline.evaluate.review.sentences import review_sentences

        parts.append("\n".join(review_sentences(found["review"], found["base"], found["tuned"])))
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
