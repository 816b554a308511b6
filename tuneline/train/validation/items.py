"""Items that are answered at each validation: some of the validation rows' records, by a hash of their ids."""

import hashlib
from pathlib import Path

from tuneline.formats.records import Record, is_learnt, read_records
from tuneline.formats.token_file import Tokens
from tuneline.train.batching import split
from tuneline.train.config.train import Train


def validation_items(params: Train, tokens: Tokens, path: Path) -> list[Record]:
    """The train.eval_items records with the smallest sha256 of their ids, in that order, of those that are validated on.

    `path` is train.jsonl, whose records the rows of `tokens` are of. A record of which a part is trained on is none, nor is one
    whose last answer is not to be learnt. Where data.validation_source gives the rows, seeds are compared on the same items, in
    the same order; train.eval_fraction draws its rows by the seed. Raises ValueError when there is none, or when the two files
    are not of the same records.
    """
    trained, held = split(tokens, params.eval_fraction, params.seed, params.replay)
    wanted = set(tokens.records[held].tolist()) - set(tokens.records[trained].tolist())
    records = dict(enumerate(read_records(path)))
    if wanted and max(wanted) >= len(records):
        raise ValueError(
            f"{path} holds {len(records)} records, and the token file has rows of record {max(wanted) + 1}: run "
            "`dvc repro tokenize`"
        )
    found = [records[number] for number in wanted if is_learnt(records[number]["messages"][-1])]
    if not found:
        raise ValueError(
            f"train.eval_metrics is {params.eval_metrics}, expected [] where no whole record is validated on: set "
            "train.eval_fraction above 0, or data.validation_source"
        )
    return sorted(found, key=lambda record: hashlib.sha256(record["id"].encode()).digest())[: params.eval_items]
