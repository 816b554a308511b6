"""Write the evaluation report: the verdict, every metric, every answer, and what people voted.

    python -m stages.report

Reads metrics/{eval_details,train,convert_details}.json, metrics/{predictions,general}.jsonl, metrics/loss.csv,
data/processed/base_general.jsonl and reviews/; writes metrics/report.html. It loads no model, so that a vote costs seconds.
"""

from pathlib import Path

from tuneline.evaluate.paths import Inputs
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

INPUTS = Inputs(
    details=Path("metrics/eval_details.json"),
    predictions=Path("metrics/predictions.jsonl"),
    general=Path("metrics/general.jsonl"),
    base_general=Path("data/processed/base_general.jsonl"),
    training=Path("metrics/train.json"),
    counts=Path("metrics/convert_details.json"),
    curve=Path("metrics/loss.csv"),
    reviews=Path("reviews"),
)
REPORT = Path("metrics/report.html")


def main(stage: Stage) -> None:
    from tuneline.evaluate.page.written import written_report

    page = stage.read_settled(INPUTS.reviews, lambda: written_report(INPUTS))
    with stage.outputs(REPORT) as (path,):
        path.write_text(page, encoding="utf-8")
    say(f"report: the verdict, every metric and every answer in {REPORT}")


if __name__ == "__main__":
    run_stage(main, __doc__)
