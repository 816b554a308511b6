"""TrainingArguments of a run, and the process group that they start."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from tuneline.train.deepspeed_config import deepspeed_config
from tuneline.train.lineage import without_folders
from tuneline.train.sections import TrainingConfig
from tuneline.train.trainer.reporting import DVCLIVE
from tuneline.train.trainer.trackers import experiment_name
from tuneline.train.validation.curve_metrics import BestBy


class TrackedArguments(TrainingArguments):
    """Arguments that name no folder of this machine where trackers get them."""

    def to_dict(self) -> dict[str, Any]:
        return without_folders(super().to_dict())


def training_arguments(
    config: TrainingConfig, scratch: Path, steps: int, device: torch.device, best: BestBy | None
) -> TrainingArguments:
    """Everything Trainer and DeepSpeed need; DeepSpeed's "auto" values are filled from the same numbers.

    best: what chooses the best checkpoint; None where nothing is validated.
    """
    params, validates = config.train, best is not None
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return TrackedArguments(
        run_name=experiment_name(),
        output_dir=str(scratch),
        use_cpu=device.type == "cpu",
        seed=params.seed,
        max_steps=steps,
        # Of each step a process gets its share in one piece, and accumulates the gradients of its micro-batches itself.
        per_device_train_batch_size=params.batch_size // processes,
        gradient_accumulation_steps=1,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        adam_beta1=params.betas[0],
        adam_beta2=params.betas[1],
        warmup_steps=int(steps * params.warmup_ratio) if params.warmup_steps is None else params.warmup_steps,
        lr_scheduler_type=(
            "constant_with_warmup" if params.lr_scheduler_type == "constant" else params.lr_scheduler_type
        ),
        max_grad_norm=params.max_grad_norm,
        neftune_noise_alpha=params.neftune_alpha,
        optim="adamw_torch_fused" if has_fused_adamw(config, device) else "adamw_torch",
        save_strategy="steps",
        save_steps=params.save_steps,
        save_total_limit=3 if validates else 2,
        eval_strategy="steps" if validates else "no",
        eval_steps=params.save_steps,
        load_best_model_at_end=validates,
        metric_for_best_model=None if best is None else best.key,
        greater_is_better=None if best is None else best.higher_is_better,
        logging_steps=params.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[name for name in params.report_to if name != DVCLIVE],
        disable_tqdm=True,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        deepspeed=deepspeed_config(config.deepspeed),
    )


def has_fused_adamw(config: TrainingConfig, device: torch.device) -> bool:
    """Whether AdamW's step is one kernel: on GPUs; a CPU, and what is offloaded to it, keeps its bytes."""
    return device.type == "cuda" and config.deepspeed.offload == "none"


def grow_segments() -> None:
    """Let torch's memory on GPUs be pieces that grow, unless the user has set it up; to be called before CUDA starts.

    Micro-batches nearly all differ in length, and blocks of fixed size would be left unused between them.
    """
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def init_distributed(arguments: TrainingArguments) -> None:
    """Start the process group, and let DeepSpeed know of it, which ZeRO-3 needs before it shards the base.

    DeepSpeed else takes each process for the only one while the base loads (transformers 5.23, on CPU).
    """
    import deepspeed

    # Reading the device is what starts torch.distributed.
    assert arguments.device is not None
    deepspeed.init_distributed(verbose=False)
