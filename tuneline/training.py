"""One process of a training run: Hugging Face Trainer on DeepSpeed, a PEFT adapter on the frozen base.

    python -m stages.train            (starts it; DeepSpeed's launcher runs one such process per device)

The base is frozen in the compute dtype, adapter and optimizer are float32, and the forward pass runs
under autocast: DeepSpeed's own bf16 mode stays off, because it would cast the adapter and lose small updates.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging

from tuneline.adapter import add_lora, save_adapter
from tuneline.batching import MicroBatch, accumulation, count_steps, micro_batches
from tuneline.chatglm.layout import trainable_parameters
from tuneline.checksums import SUMS, combined, stage_code
from tuneline.guard import die_with
from tuneline.loss import learnt_positions, summed_loss
from tuneline.model import ADAPTER, BASE, device_name, load_model, pick_device, pick_dtype
from tuneline.nll import head_weight
from tuneline.outputs import building, to_json, write_json
from tuneline.params import load
from tuneline.progress import Progress
from tuneline.scratch import FACTS
from tuneline.sections.deepspeed import DeepSpeed
from tuneline.sections.lora import Lora
from tuneline.sections.train import Train
from tuneline.sections.tune import Tune
from tuneline.stage import machine, peak_memory
from tuneline.tokens import Tokens
from tuneline.trainer import Seal, Stop, SupervisedTrainer

TOKENS = Path("data/processed/tokens.safetensors")
METRICS = Path("metrics/train.json")
CURVE = Path("metrics/loss.csv")
STOPPED = 143
"""Exit status after SIGTERM, as a shell gives it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of resume checkpoints")
    parser.add_argument("--resume", type=Path, default=None, help="checkpoint to go on from")
    parser.add_argument("--starter", type=int, default=0, help="pid to end with; 0 is none")
    options = parser.parse_args()
    if options.starter:
        die_with(options.starter)
    logging.set_verbosity_error()
    # Of libraries about one another's deprecations, which no user can mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    train(options.scratch, options.resume)


def train(scratch: Path, resume: Path | None) -> None:
    params, lora, deepspeed = load(Train), load(Lora), load(DeepSpeed)
    device = pick_device()
    if device.type == "cpu":
        avoid_compiler()
    tokens = Tokens(TOKENS)
    settings = training_arguments(params, deepspeed, scratch, count_steps_of(params, tokens), device)
    set_seed(params.seed)
    dtype = pick_dtype(params.dtype, device, "train.dtype")
    model = prepared(load_model(BASE, dtype), lora, params.gradient_checkpointing)
    batches = batches_of(params, tokens)
    per_step = len(batches) // settings.max_steps
    sizes = [sum(int(tokens.lengths[row]) for row, _ in batch) for batch in batches]
    progress = Progress(CURVE, [sum(sizes[i : i + per_step]) for i in range(0, len(sizes), per_step)])
    trainer = SupervisedTrainer(
        model=model, args=settings, tokens=tokens, batches=batches, dtype=dtype, pad=model.config.pad_token_id or 0
    )
    stop = Stop()
    trainer.remove_callback(PrinterCallback)
    for callback in (stop, Seal(), *([progress] if trainer.is_world_process_zero() else [])):
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if stop.asked:
        sys.exit(STOPPED)
    if trainer.is_world_process_zero():
        report = summary(model, trainer.state.log_history, tokens, batches, settings.max_steps)
        with building(ADAPTER) as folder:
            save_adapter(trainer.accelerator.unwrap_model(trainer.model), folder)
            (folder / "lineage.json").write_text(to_json(lineage()), encoding="utf-8")
        write_json(METRICS, report)
        facts = {"tokens_per_second": round(progress.tokens_per_second(trainer.state), 1), "dtype": str(dtype)}
        facts |= {"device": device_name(device), "peak_memory_gb": _peak(device), "resumed": resume is not None}
        (scratch / FACTS).write_text(json.dumps(facts | machine()), encoding="utf-8")


def avoid_compiler() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives: gloo serves, and no compiler may be there.

    `is_compatible` of that op asks only for Linux, so init_distributed would fail without c++ (deepspeed 0.19.8).
    """
    from deepspeed import ops

    assert "deepspeed_shm_comm" in ops.__compatible_ops__, "DeepSpeed has renamed deepspeed_shm_comm"
    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def prepared(model: Any, lora: Lora, checkpointing: bool) -> Any:
    """The base with a fresh adapter, whose forward pass returns the summed loss and never the logits of a batch."""
    model.config.use_cache = False
    head = head_weight(model)

    def forward(input_ids: torch.Tensor, labels: torch.Tensor, **unused: Any) -> dict[str, torch.Tensor]:
        # No attention_mask: padding is on the right, where a causal model never looks.
        hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        states, targets = learnt_positions(hidden, labels)
        return {"loss": summed_loss(states, head, targets)}

    tuned = add_lora(model, lora)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.forward = forward
    return tuned


def training_arguments(
    params: Train, deepspeed: DeepSpeed, scratch: Path, steps: int, device: torch.device
) -> TrainingArguments:
    """Everything Trainer and DeepSpeed need; DeepSpeed's "auto" values are filled from the same numbers."""
    import os

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return TrainingArguments(
        output_dir=str(scratch),
        use_cpu=device.type == "cpu",
        seed=params.seed,
        max_steps=steps,
        per_device_train_batch_size=params.micro_batch_size,
        gradient_accumulation_steps=accumulation(params.batch_size, params.micro_batch_size, processes),
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        adam_beta1=params.betas[0],
        adam_beta2=params.betas[1],
        warmup_steps=int(steps * params.warmup_ratio) if params.warmup_steps is None else params.warmup_steps,
        lr_scheduler_type="constant_with_warmup" if params.scheduler == "constant" else params.scheduler,
        max_grad_norm=params.max_grad_norm,
        optim="adamw_torch",
        save_strategy="steps",
        save_steps=params.save_steps,
        save_total_limit=2,
        logging_steps=params.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        deepspeed={
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "zero_optimization": {"stage": deepspeed.zero_stage},
            "bf16": {"enabled": False},
            "fp16": {"enabled": False},
            "steps_per_print": 10**9,
        },
    )


def count_steps_of(params: Train, tokens: Tokens) -> int:
    return count_steps(len(tokens), params.batch_size, params.epochs, params.max_steps)


def batches_of(params: Train, tokens: Tokens) -> list[MicroBatch]:
    return micro_batches(
        tokens.lengths,
        tokens.learnt_per_row,
        batch_size=params.batch_size,
        micro_batch_size=params.micro_batch_size,
        steps=count_steps_of(params, tokens),
        seed=params.seed,
    )


def lineage() -> dict[str, Any]:
    """What made the adapter, by content: parameters, base, tokens and the code that trained."""
    sections = (load(Tune), load(Lora), load(Train), load(DeepSpeed))
    return {
        "params": {type(section).__name__.lower(): section.model_dump() for section in sections},
        "inputs": combined([TOKENS, BASE / SUMS]),
        "code": stage_code("train"),
    }


def summary(
    model: Any, history: list[dict[str, float]], tokens: Tokens, batches: list[MicroBatch], steps: int
) -> dict[str, Any]:
    """metrics/train.json: parameters, what was seen, and how the loss (nats per learnt token) went."""
    trainable, total = model.get_nb_trainable_parameters()
    counts = {"trainable_parameters": trainable, "total_parameters": total}
    if model.config.model_type == "glm":
        shapes = {name: one.shape for name, one in model.named_parameters() if one.requires_grad}
        counts["trainable_parameters_as_chatglm"] = trainable_parameters(shapes)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    seen = [row for batch in batches for row, _ in batch]
    return {
        **counts,
        "trainable_share": round(trainable / total, 6),
        "steps": steps,
        "rows_seen": len(seen),
        "tokens": int(tokens.lengths[seen].sum()),
        "learnt_tokens": int(tokens.learnt_per_row[seen].sum()),
        "first_loss": float(f"{losses[0]:.6g}"),
        "last_loss": float(f"{losses[-1]:.6g}"),
    }


def _peak(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else peak_memory()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train: {' '.join(str(error).split())}")
