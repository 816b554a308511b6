"""Let the tuned model answer the held-out questions, and compare it with the base, item by item.

    python -m stages.evaluate

Reads data/processed/{heldout,base_answers,base_general}.jsonl, data/processed/classes.json, models/{base,adapter},
metrics/convert_details.json, section `evaluate` and the metrics and prompts that it names in evaluation/; writes
metrics/{eval,eval_details}.json, metrics/{predictions,general}.jsonl and metrics/{scores,intervals,per_class,confusion}.csv.
"""

from pathlib import Path

from tuneline.evaluate.answering import Questions
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.constraints import allowed_classes, generation_record
from tuneline.evaluate.endpoint.sides import backend_record, check_backend
from tuneline.evaluate.general_prompts import read_general
from tuneline.evaluate.own.kept import answer_once
from tuneline.evaluate.own.metrics import ready_metrics
from tuneline.evaluate.paths import Outputs
from tuneline.evaluate.predict import pair, read_answers
from tuneline.formats.records import read_heldout
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

HELDOUT = Path("data/processed/heldout.jsonl")
CLASSES = Path("data/processed/classes.json")
BASE_ANSWERS = Path("data/processed/base_answers.jsonl")
BASE_GENERAL = Path("data/processed/base_general.jsonl")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
COUNTS = Path("metrics/convert_details.json")
OUTPUTS = Outputs(
    metrics=Path("metrics/eval.json"),
    details=Path("metrics/eval_details.json"),
    predictions=Path("metrics/predictions.jsonl"),
    general=Path("metrics/general.jsonl"),
    scores=Path("metrics/scores.csv"),
    intervals=Path("metrics/intervals.csv"),
    per_class=Path("metrics/per_class.csv"),
    confusion=Path("metrics/confusion.csv"),
)


def main(stage: Stage) -> None:
    from tuneline.evaluate.results import arrivals_of, headline_sentence, model_facts, prediction_rows, write_results

    params, records = stage.load(Evaluate), read_heldout(HELDOUT)
    own, classes = ready_metrics(params.metrics, records), allowed_classes(params, CLASSES, records)
    base, general = check_backend(params, pair(records, read_answers(BASE_ANSWERS))), read_general(BASE_GENERAL, params)
    answered = answer_once(Questions(BASE, ADAPTER, records, classes, params, "evaluate"), stage, own.metrics)
    how = generation_record(params, classes, answered.answers) | backend_record(params, base, answered.answers)
    about = {"generation": how} | model_facts(BASE, ADAPTER)
    with stage.outputs(*OUTPUTS) as paths:
        rows = prediction_rows(records, base, answered.answers, own, arrivals_of(COUNTS))
        metrics = write_results(rows, (general, answered.general), about, Outputs(*paths), own)
    answered.forget()
    stage.record_run_info(**answered.run_info)
    say(f"evaluate: {len(records)} answers of the tuned model, {headline_sentence(metrics)}; {OUTPUTS.predictions}")


if __name__ == "__main__":
    run_stage(main, __doc__)
