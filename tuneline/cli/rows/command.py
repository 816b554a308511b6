"""`tuneline rows`: which training rows may hurt, each with its file and line, and a list to leave out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = Path("metrics/rows.jsonl")
PAGE = Path("metrics/rows.html")
EXCLUDE = "exclude.txt"
"""Below data/raw, as data.exclude has it."""
FEW = 10
"""Rows that the terminal shows."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("rows")
def main(
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the rows, those whose answer belongs to its question least.")
    ] = 0.05,
) -> None:
    """Find training rows that may hurt: answers that are not their question's, doubtful labels, conflicts, outliers.

    \b
    tuneline rows
    tuneline rows --share 0.02

    Reads data/processed/{train.jsonl,tokens.safetensors} and models/{base,adapter}; writes metrics/rows.jsonl (every row) and
    metrics/rows.html (those to read, and what to put into data.exclude).
    """
    from tuneline.cli.rows.findings import findings
    from tuneline.cli.rows.listing import as_lines, listed
    from tuneline.cli.rows.measure import Inputs, measured_rows
    from tuneline.cli.rows.page import page
    from tuneline.evaluate.config import Evaluate
    from tuneline.formats.records import write_jsonl
    from tuneline.runtime.atomic import atomic_output
    from tuneline.runtime.params import load
    from tuneline.tokenize.config import Tokenize

    records, measured = measured_rows(Inputs(), load(Tokenize), load(Evaluate).dtype)
    found = findings(records, measured, share)
    lines = as_lines(records, measured, found)
    with atomic_output(LINES) as partial:
        write_jsonl(partial, lines)
    shown = listed(records, lines)
    with atomic_output(PAGE) as partial:
        partial.write_text(page(shown, lines, share, EXCLUDE), encoding="utf-8")
    show(shown, lines)


def show(shown: "Sequence[dict[str, Any]]", lines: "Sequence[dict[str, Any]]") -> None:
    """Counts by reason, and the first rows."""
    from rich.console import Console
    from rich.table import Table

    from tuneline.cli.rows.findings import KINDS

    console = Console(highlight=False, markup=False)
    counts = {kind: sum(kind in line["reasons"] for line in lines) for kind in KINDS}
    console.print(f"{len(lines)} rows: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    if unknown := sum(line["odds"] is None for line in lines):
        console.print(
            f"{unknown} of them have no odds (a source of fewer than 20 comparable rows, or a rare label): no mismatch"
        )
    table = Table(box=None, pad_edge=False)
    for title in ("origin", "id", "reasons", "question", "answer"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for row in shown[:FEW]:
        texts = (" ".join(row[name].split()) for name in ("question", "answer"))
        table.add_row(row["origin"], row["id"], ", ".join(row["reasons"]), *texts)
    console.print(table)
    if shown:
        console.print(f"To leave rows out, read {PAGE}, put their ids into data/raw/{EXCLUDE}, an id a line, and set")
        console.print(f"data.exclude: {EXCLUDE} in params.yaml")
    console.print(f"{LINES}, {PAGE}")
