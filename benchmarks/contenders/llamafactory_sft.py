"""LLaMA-Factory's supervised fine-tuning on the same dialogues, through its own entry."""

import json
import sys
from pathlib import Path
from typing import Any

from llamafactory.train.tuner import run_exp

from benchmarks.contenders.clock import Clock


def main(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    said = [{"instruction": row["question"], "input": "", "output": row["answer"]} for row in job["rows"]]
    (folder / "rows.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")
    clock = Clock()
    arguments = job["arguments"] | {
        "model_name_or_path": job["base"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "template": "gemma",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "cutoff_len": job["max_tokens"],
        "disable_shuffling": True,
        "disable_gradient_checkpointing": True,
        "overwrite_output_dir": True,
    }
    run_exp(arguments, callbacks=[clock])
    clock.write(Path(job["result"]))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
