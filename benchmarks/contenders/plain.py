"""transformers' Trainer with PEFT, as its documentation has it: padded rows, whole logits."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks.contenders.step_timer import StepTimer


def train(job: dict[str, Any]) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=getattr(torch, job["dtype"]))
    model.config.use_cache = False
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=job["targets"])
    model = get_peft_model(model, lora, autocast_adapter_dtype=True)
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in job["rows"]]
    timer = StepTimer()
    settings = TrainingArguments(**job["arguments"], train_sampling_strategy="sequential")
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True)
    Trainer(model=model, args=settings, train_dataset=rows, data_collator=collate, callbacks=[timer]).train()
    return timer.result()
