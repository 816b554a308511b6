"""Tokenization: training records to the token file and the data report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.tokenize.config import Tokenize

if TYPE_CHECKING:
    from tuneline.tokenize.encode import Summary


def tokenize(
    params: Tokenize, train_records: Path, counts: Path, rejects: Path, removed: Path, base: Path, tokens: Path,
    report: Path,
) -> "Summary":  # fmt: skip
    """Write the token file and the report, and return the counts of metrics/tokenize.json.

    `counts`, `rejects` and `removed` are convert's, for the report; `base` is a folder with a tokenizer. Raises
    ValueError for a record that can't be trained on, and when no row is left.
    """
    # Here, so that a program that imports this module shows its help at once.
    from tuneline.formats.records import read_records
    from tuneline.formats.stored import COUNTS, NUMBER, read_object
    from tuneline.formats.token_file import TokenWriter
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_tokenizer
    from tuneline.tokenize.encode import Draws, Preview, encode_all
    from tuneline.tokenize.replay import replay_draws
    from tuneline.tokenize.report import data_report

    check_context(params, base)
    converted = read_object(counts, {**COUNTS, "sources.*.weight": NUMBER}, "convert")
    tokenizer = load_tokenizer(base)
    prompter = load_prompter(tokenizer)
    writer, preview = TokenWriter(tokens), Preview(converted["sources"])
    records = read_records(train_records)
    weights = {name: row["weight"] for name, row in converted["sources"].items()}
    draws = Draws(weights, replay_draws(converted["sources"]))
    summary = encode_all(records, converted["total"]["train"], prompter, params, writer, preview, draws)
    writer.finish()
    report.write_text(data_report(converted, summary, preview, prompter, tokenizer, rejects, removed), encoding="utf-8")
    return summary


def check_context(params: Tokenize, base: Path) -> None:
    """Raises ValueError for rows longer than the base has positions for."""
    path = base / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    most = (values.get("text_config") or values).get("max_position_embeddings")
    if isinstance(most, int) and params.max_tokens > most:
        raise ValueError(
            f"tokenize.max_tokens is {params.max_tokens}, expected at most {most}, the context of the base "
            "(max_position_embeddings of its config.json)"
        )
