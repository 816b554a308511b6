"""Read the raw files, set the held-out items aside, write the rest for training, and account for every item.

    python -m stages.convert

Reads data/raw and section `data`; writes data/processed/{train,heldout,rejects,removed}.jsonl, data/processed/classes.json and
metrics/{convert,convert_details}.json. TUNELINE_WORKERS sets the number of processes; the outputs do not depend on it.
"""

from pathlib import Path

from tuneline.data.config import Data
from tuneline.data.convert import convert, summary_lines
from tuneline.formats.extraction import read_classes
from tuneline.runtime.atomic import write_json
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

RAW = Path("data/raw")
TRAIN = Path("data/processed/train.jsonl")
HELDOUT = Path("data/processed/heldout.jsonl")
REJECTS = Path("data/processed/rejects.jsonl")
REMOVED = Path("data/processed/removed.jsonl")
CLASSES = Path("data/processed/classes.json")
METRICS = Path("metrics/convert.json")
DETAILS = Path("metrics/convert_details.json")


def main(stage: Stage) -> None:
    params = stage.load(Data)
    targets = (TRAIN, HELDOUT, REJECTS, REMOVED, CLASSES, METRICS, DETAILS)
    with stage.outputs(*targets) as (*records, classes, metrics, details):
        counts = convert(params, RAW, *records)
        write_json(classes, read_classes(records[0]))
        write_json(metrics, counts["total"])
        write_json(details, counts)
    say(*summary_lines(counts, REJECTS))


if __name__ == "__main__":
    run_stage(main, __doc__)
