"""Merge the adapter into the base, and fail unless the merged model equals the adapter.

    python -m stages.export

Reads models/{base,adapter}, data/processed/{train.jsonl,heldout.jsonl,classes.json}, metrics/predictions.jsonl,
metrics/{convert_details,eval_details,train}.json and sections `base`, `export`; writes models/merged and
metrics/export.json. Fails when a tensor is not base plus adapter, or when the two models differ by more than
export.max_delta_nll.
"""

from pathlib import Path

from tuneline.export.config import Export
from tuneline.export.inputs import Inputs
from tuneline.models.config import Base
from tuneline.runtime.atomic import write_json
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say

INPUTS = Inputs(
    base=Path("models/base"),
    adapter=Path("models/adapter"),
    train=Path("data/processed/train.jsonl"),
    heldout=Path("data/processed/heldout.jsonl"),
    counts=Path("metrics/convert_details.json"),
    training=Path("metrics/train.json"),
    evaluation=Path("metrics/eval_details.json"),
    predictions=Path("metrics/predictions.jsonl"),
    classes=Path("data/processed/classes.json"),
)
MERGED = Path("models/merged")
METRICS = Path("metrics/export.json")


def main(stage: Stage) -> None:
    params, base = stage.load(Export), stage.load(Base)
    from tuneline.export.folder import comparison_device, equivalence_sentence, export

    device = comparison_device(INPUTS, params)
    with stage.outputs(MERGED, METRICS) as (folder, metrics):
        report = export(folder, INPUTS, params, base, device)
        write_json(metrics, report)
    stage.record_run_info(device=device.type)
    say(f"export: {MERGED} {equivalence_sentence(report)}")


if __name__ == "__main__":
    run_stage(main, __doc__)
