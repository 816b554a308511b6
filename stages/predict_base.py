"""Let the base answer the held-out questions: what every tuned model is compared with.

    python -m stages.predict_base

Reads data/processed/{heldout.jsonl,classes.json}, models/base and section `evaluate`; writes
data/processed/{base_answers,base_general}.jsonl. Of training it reads the names of
classes alone, so ablations do not run it again.
"""

from pathlib import Path

from tuneline.evaluate.answering import Questions, answer
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.constraints import allowed_classes
from tuneline.formats.records import read_heldout, write_jsonl
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

HELDOUT = Path("data/processed/heldout.jsonl")
CLASSES = Path("data/processed/classes.json")
BASE = Path("models/base")
ANSWERS = Path("data/processed/base_answers.jsonl")
GENERAL = Path("data/processed/base_general.jsonl")


def main(stage: Stage) -> None:
    params = stage.load(Evaluate)
    records = read_heldout(HELDOUT)
    classes = allowed_classes(params, CLASSES, records)
    answered = answer(Questions(BASE, None, records, classes, params, "predict_base"))
    with stage.outputs(ANSWERS, GENERAL) as (answers_path, general_path):
        write_jsonl(answers_path, answered.answers)
        write_jsonl(general_path, answered.general)
    answered.forget()
    stage.record_run_info(**answered.run_info)
    say(f"predict_base: {len(answered.answers)} answers of the base in {ANSWERS}")


if __name__ == "__main__":
    run_stage(main, __doc__)
