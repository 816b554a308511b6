"""Turn training records into token ids, with every token but the answers masked out of the loss.

    python -m stages.tokenize

Reads data/processed/{train,rejects,removed}.jsonl, metrics/convert.json, the tokenizer of models/base and section
`tokenize`; writes data/processed/tokens.safetensors, metrics/tokenize.json and metrics/data.html.
"""

import json
from contextlib import ExitStack
from pathlib import Path

from tuneline.runtime.atomic import building, write_json
from tuneline.runtime.params import load
from tuneline.runtime.stage import run
from tuneline.tokenize.config import Tokenize

TRAIN = Path("data/processed/train.jsonl")
REJECTS = Path("data/processed/rejects.jsonl")
REMOVED = Path("data/processed/removed.jsonl")
BASE = Path("models/base")
COUNTS = Path("metrics/convert.json")
TOKENS = Path("data/processed/tokens.safetensors")
METRICS = Path("metrics/tokenize.json")
REPORT = Path("metrics/data.html")


def main() -> None:
    from tuneline.formats.records import read_records
    from tuneline.formats.token_file import TokenWriter
    from tuneline.models.chat_format import Prompter
    from tuneline.models.loading import load_tokenizer
    from tuneline.tokenize.encode import Preview, encode_all
    from tuneline.tokenize.report import data_report

    params = load(Tokenize)
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(BASE)
    prompter = Prompter(tokenizer)
    with ExitStack() as stack:
        tokens, report = (stack.enter_context(building(path)) for path in (TOKENS, REPORT))
        writer, preview = TokenWriter(tokens), Preview(counts["sources"])
        summary = encode_all(read_records(TRAIN), counts["total"]["train"], prompter, params, writer, preview)
        writer.finish()
        page = data_report(counts, summary, preview, prompter, tokenizer, REJECTS, REMOVED)
        report.write_text(page, encoding="utf-8")
    write_json(METRICS, summary.counts())
    print(f"tokenize: {summary.rows} rows, {summary.tokens} tokens ({summary.learnt_share:.0%} learnt), ", end="")
    print(f"{summary.overlong} over {params.max_tokens} tokens left out; {TOKENS}, {REPORT}")


if __name__ == "__main__":
    run(main, __doc__)
