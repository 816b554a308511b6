"""LLaMA-Factory's supervised fine-tuning on the same dialogues, through its own entry."""

import json
from pathlib import Path
from typing import Any

from llamafactory.train.tuner import run_exp

from benchmarks.contenders.step_timer import StepTimer


def train(job: dict[str, Any]) -> dict[str, Any]:
    rows = [{"instruction": row["question"], "input": "", "output": row["answer"]} for row in job["rows"]]
    Path("rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    Path("dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")
    timer = StepTimer()
    arguments = job["arguments"] | {
        "model_name_or_path": job["base"], "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0, "lora_target": "all", "template": "gemma",
        "dataset": "rows", "dataset_dir": str(Path.cwd()), "cutoff_len": job["max_tokens"],
        "disable_shuffling": True, "disable_gradient_checkpointing": True, "overwrite_output_dir": True,
    }  # fmt: skip
    run_exp(arguments, callbacks=[timer])
    return timer.result()
