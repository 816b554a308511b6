"""TRL's SFTTrainer on the same token ids, with packing or without."""

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.contenders.step_timer import StepTimer


def train(job: dict[str, Any]) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=getattr(torch, job["dtype"]))
    rows = [
        {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
        for row in job["rows"]
    ]
    settings = SFTConfig(
        **job["arguments"] | ({"max_steps": -1, "num_train_epochs": 1} if job["packing"] else {}),
        train_sampling_strategy="sequential",
        max_length=job["max_tokens"],
        packing=job["packing"],
        completion_only_loss=True,
        gradient_checkpointing=False,
    )
    timer = StepTimer()
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=job["targets"]),
        callbacks=[timer],
    )
    trainer.train()
    return timer.result()
