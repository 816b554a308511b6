"""Read the raw files, set the held-out items aside, write the rest for training, and account for every item.

    python -m stages.convert

Reads data/raw and section `data`; writes data/processed/{train,heldout,rejects,removed}.jsonl and
metrics/{convert,convert_details}.json. TUNELINE_WORKERS sets the number of processes; the outputs do not depend on it.
"""

from pathlib import Path

from tuneline.data.config import Data
from tuneline.data.convert import convert, summary_lines
from tuneline.runtime.atomic import write_json
from tuneline.runtime.stage import Stage, run_stage

RAW = Path("data/raw")
TRAIN = Path("data/processed/train.jsonl")
HELDOUT = Path("data/processed/heldout.jsonl")
REJECTS = Path("data/processed/rejects.jsonl")
REMOVED = Path("data/processed/removed.jsonl")
METRICS = Path("metrics/convert.json")
DETAILS = Path("metrics/convert_details.json")


def main(stage: Stage) -> None:
    params = stage.load(Data)
    with stage.outputs(TRAIN, HELDOUT, REJECTS, REMOVED, METRICS, DETAILS) as (*records, metrics, details):
        counts = convert(params, RAW, *records)
        write_json(metrics, counts["total"])
        write_json(details, counts)
    print(*summary_lines(counts, REJECTS), sep="\n")


if __name__ == "__main__":
    run_stage(main, __doc__)
