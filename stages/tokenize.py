"""Turn training records into token ids, with every token but the answers masked out of the loss.

    python -m stages.tokenize

Reads data/processed/{train,rejects,removed}.jsonl, metrics/convert_details.json, the tokenizer of models/base and section
`tokenize`; writes data/processed/tokens.safetensors, metrics/tokenize.json and metrics/data.html.
"""

from pathlib import Path

from tuneline.runtime.atomic import write_json
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import count, say
from tuneline.tokenize.config import Tokenize
from tuneline.tokenize.run import tokenize

TRAIN = Path("data/processed/train.jsonl")
REJECTS = Path("data/processed/rejects.jsonl")
REMOVED = Path("data/processed/removed.jsonl")
COUNTS = Path("metrics/convert_details.json")
BASE = Path("models/base")
TOKENS = Path("data/processed/tokens.safetensors")
METRICS = Path("metrics/tokenize.json")
REPORT = Path("metrics/data.html")


def main(stage: Stage) -> None:
    params = stage.load(Tokenize)
    with stage.outputs(TOKENS, METRICS, REPORT) as (tokens, metrics, report):
        summary = tokenize(params, TRAIN, COUNTS, REJECTS, REMOVED, BASE, tokens, report)
        write_json(metrics, summary.counts())
    say(
        f"tokenize: {count(summary.rows, 'row')}, {summary.tokens:,} tokens ({summary.supervised_fraction:.0%} supervised), "
        f"{summary.overlong:,} over {params.max_tokens:,} tokens left out; {TOKENS}, {REPORT}"
    )


if __name__ == "__main__":
    run_stage(main, __doc__)
