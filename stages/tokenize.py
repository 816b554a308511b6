"""Turn training records into token ids, with every token but the answers masked out of the loss.

    python -m stages.tokenize

Reads data/processed/train.jsonl, the tokenizer of models/base and section `tokenize`; writes
data/processed/tokens.safetensors, metrics/tokenize.json and metrics/data.html.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tuneline.outputs import building, write_json
from tuneline.params import load
from tuneline.prompt import IGNORE_INDEX, Encoded, Mask, Prompter
from tuneline.records import Record, read_records
from tuneline.sections.tokenize import Tokenize
from tuneline.stage import run

TRAIN = Path("data/processed/train.jsonl")
BASE = Path("models/base")
COUNTS = Path("metrics/convert.json")
TOKENS = Path("data/processed/tokens.safetensors")
METRICS = Path("metrics/tokenize.json")
REPORT = Path("metrics/data.html")
PREVIEWED = 20
"""Rows of the mask preview, spread evenly over the file and so over the sources."""


def main() -> None:
    from tuneline.datareport import data_report, mask_preview
    from tuneline.model import load_tokenizer
    from tuneline.tokens import write_tokens

    params = load(Tokenize)
    tokenizer = load_tokenizer(BASE)
    prompter = Prompter(tokenizer)
    rows = [(record["id"], encode(record, prompter, params.mask)) for record in read_records(TRAIN)]
    kept = [(name, row) for name, row in rows if len(row.input_ids) <= params.max_tokens]
    if not kept:
        shortest = min((len(row.input_ids) for _, row in rows), default=0)
        raise ValueError(
            f"tokenize.max_tokens is {params.max_tokens} and the shortest of {len(rows)} rows has {shortest}: "
            "no row is left to train on; raise max_tokens"
        )
    summary = summarise([row for _, row in rows], [row for _, row in kept])
    every = max(1, len(kept) // PREVIEWED)
    preview = [mask_preview(name, row, prompter, tokenizer) for name, row in kept[::every][:PREVIEWED]]
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    with ExitStack() as stack:
        tokens, report = (stack.enter_context(building(path)) for path in (TOKENS, REPORT))
        write_tokens(tokens, (row for _, row in kept))
        page = data_report(counts, summary, [len(row.input_ids) for _, row in rows], preview)
        report.write_text(page, encoding="utf-8")
    write_json(METRICS, summary)
    print(
        f"tokenize: {summary['rows']} rows, {summary['tokens']} tokens ({summary['learnt_share']:.0%} learnt), ", end=""
    )
    print(f"{summary['overlong']} over {params.max_tokens} tokens left out; {TOKENS}, {REPORT}")


def encode(record: Record, prompter: Prompter, mask: Mask) -> Encoded:
    """The record's ids and labels; raises ValueError naming the record when it cannot be learnt from."""
    try:
        return prompter.training_row(record["messages"], mask)
    except ValueError as error:
        raise ValueError(f"record {record['id']} ({record['origin']}): {error}") from None


def summarise(rows: list[Encoded], kept: list[Encoded]) -> dict[str, Any]:
    """Counts of metrics/tokenize.json; rows + overlong is what convert wrote."""
    tokens = sum(len(row.input_ids) for row in kept)
    learnt = sum(label != IGNORE_INDEX for row in kept for label in row.labels)
    return {
        "rows": len(kept),
        "overlong": len(rows) - len(kept),
        "tokens": tokens,
        "learnt_tokens": learnt,
        "learnt_share": round(learnt / tokens, 4),
        "longest": max(len(row.input_ids) for row in kept),
    }


if __name__ == "__main__":
    run(main, __doc__)
