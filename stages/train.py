"""Fit an adapter to the answers: check everything, then train here, or become the launcher of tuneline.train.run.

    python -m stages.train

Reads data/processed/tokens.safetensors and train.jsonl, models/base and sections `tune`, `lora`, `ptuning`, `freeze`, `train`,
`deepspeed`; writes models/adapter, metrics/train.json and metrics/loss.csv. A run that was stopped goes on where it was saved.
"""

import json
from pathlib import Path

from tuneline.runtime.atomic import write_json
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import count, say
from tuneline.train.checkpoints import read_run_info, scratch_folder
from tuneline.train.checks import check
from tuneline.train.launch import launch_training
from tuneline.train.lineage import fingerprint, lineage_of
from tuneline.train.process_arguments import Paths
from tuneline.train.sections import load_config

TOKENS = Path("data/processed/tokens.safetensors")
RECORDS = Path("data/processed/train.jsonl")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/train.json")
CURVE = Path("metrics/loss.csv")


def result(metrics: Path) -> str:
    """Steps, rows and loss, in a sentence."""
    found = json.loads(metrics.read_text(encoding="utf-8"))
    seen = f"{count(found['steps'], 'step')}, {count(found['rows_seen'], 'row')}"
    return f"{seen}, loss {found['first_loss']:.3f} to {found['last_loss']:.3f}"


def main(stage: Stage) -> None:
    config = load_config(stage.load)
    processes, device, start = check(config, TOKENS, BASE, RECORDS)
    lineage = lineage_of(config, TOKENS, BASE, stage.code, start, RECORDS)
    with (
        scratch_folder(fingerprint(lineage, processes, device)) as scratch,
        stage.outputs(ADAPTER, METRICS, live=[CURVE]) as (adapter, metrics),
    ):
        paths = Paths(TOKENS, BASE, scratch, CURVE, adapter, metrics, start.folder if start else None, RECORDS)
        launch_training(config, processes, paths)
        write_json(adapter / "lineage.json", lineage)
        stage.record_run_info(**read_run_info(scratch))
    say(f"train: {result(METRICS)}; {ADAPTER}")


if __name__ == "__main__":
    run_stage(main, __doc__)
