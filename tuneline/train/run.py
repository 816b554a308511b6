"""One process of a training run: Hugging Face Trainer on DeepSpeed, what the method trains on the frozen rest.

    python -m stages.train            (starts it; DeepSpeed's launcher runs one such process per device)

What is frozen is in the compute dtype, what trains and the optimizer are float32, and the forward pass runs
under autocast: DeepSpeed's own bf16 mode stays off, because it would cast the adapter and lose small updates.
"""

import argparse
import json
import os
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, EarlyStoppingCallback, PrinterCallback, TrainerState, TrainingArguments, set_seed
from transformers.utils import logging

from tuneline.formats.token_file import Tokens
from tuneline.models import cpu_tuning as cpu
from tuneline.models.loading import ADAPTER, BASE, device_name, load_model, pick_device, pick_dtype
from tuneline.runtime.atomic import building, to_json, write_json
from tuneline.runtime.hashing import SUMS, combined, stage_code
from tuneline.runtime.params import load
from tuneline.runtime.process import die_with
from tuneline.runtime.stage import machine, peak_memory
from tuneline.train import methods
from tuneline.train.batching import MicroBatch, accumulation, count_steps, micro_batches, split
from tuneline.train.checkpoints import FACTS
from tuneline.train.collate import collator, in_one_line, rows_stay_apart
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.train import Train
from tuneline.train.deepspeed_config import deepspeed_config
from tuneline.train.fused_lora import fuse
from tuneline.train.loss_forward import supervise
from tuneline.train.progress import Progress
from tuneline.train.trainer import Seal, Stop, SupervisedTrainer

TOKENS = Path("data/processed/tokens.safetensors")
METRICS = Path("metrics/train.json")
CURVE = Path("metrics/loss.csv")
LIVE = "dvclive"
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
    # It says that it takes DeepSpeed's accumulation steps, as it should.
    getLogger("accelerate").setLevel(ERROR)
    # Of libraries about one another's deprecations, which no user can mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    train(options.scratch, options.resume)


def train(scratch: Path, resume: Path | None) -> None:
    params, deepspeed = load(Train), load(DeepSpeed)
    method = methods.chosen_method()
    device = pick_device()
    if device.type == "cpu":
        cpu.avoid_compiler()
        cpu.keep_few_kernels()
        cpu.give_back_large_blocks()
    tokens = Tokens(TOKENS)
    values = json.loads((BASE / "config.json").read_text(encoding="utf-8"))
    line = in_one_line(AutoConfig.for_model(**values), method, params.neftune_alpha)
    batches, validation = batches_of(params, tokens, line=line)
    steps = len(batches) * params.micro_batch_size // params.batch_size
    settings = training_arguments(params, deepspeed, scratch, steps, device)
    join(settings)
    make_deterministic(params, device)
    set_seed(params.seed)
    dtype = pick_dtype(params.dtype, device, "train.dtype")
    base = load_model(BASE, dtype, quantize=method.lora.quantize)
    # Shards of ZeRO-3 can't be asked before DeepSpeed gathers them.
    whole = not any(hasattr(one, "ds_id") for one in base.parameters())
    collate = collator(base, line=line and (not whole or rows_stay_apart(base)))
    model = prepared(base, method, params.gradient_checkpointing)
    initial = keep_initial(model, method, scratch)
    progress = Progress(CURVE, tokens_per_step(tokens, batches, steps))
    trainer = SupervisedTrainer(
        model=model, args=settings, tokens=tokens, batches=batches, validation=validation, dtype=dtype,
        collate=collate, faster_b=method.lora.loraplus_ratio if is_loraplus(method) else None,
    )  # fmt: skip
    stop = Stop()
    trainer.remove_callback(PrinterCallback)
    patience = [] if params.early_stopping is None else [EarlyStoppingCallback(params.early_stopping)]
    watching = [progress, *live_curves(params)] if trainer.is_world_process_zero() else []
    for callback in (stop, Seal(), *patience, *watching):
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if stop.asked:
        sys.exit(STOPPED)
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    with gathered(tuned):
        if trainer.is_world_process_zero():
            report = summary(tuned, trainer.state, tokens, batches, params)
            with building(ADAPTER) as folder:
                methods.save(tuned, method, folder, initial)
                (folder / "lineage.json").write_text(to_json(lineage()), encoding="utf-8")
            write_json(METRICS, report)
    if trainer.is_world_process_zero():
        facts = {"tokens_per_second": round(progress.tokens_per_second(trainer.state), 1), "dtype": str(dtype)}
        facts |= {"device": device_name(device), "peak_memory_gb": _peak(device), "resumed": resume is not None}
        (scratch / FACTS).write_text(json.dumps(facts | machine()), encoding="utf-8")


def make_deterministic(params: Train, device: torch.device) -> None:
    """On GPUs and if asked for, only kernels whose results are the same bytes each time; others raise an error."""
    if params.deterministic and device.type == "cuda":
        # cuBLAS reads this when it starts (its documentation, "Results reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def live_curves(params: Train) -> list[Any]:
    if LIVE not in params.report_to:
        return []
    from tuneline.train.dvclive_callback import LiveCurves

    return [LiveCurves()]


def is_loraplus(method: methods.Method) -> bool:
    return method.tune.method == "lora" and method.lora.variant == "loraplus"


def keep_initial(model: Any, method: methods.Method, scratch: Path) -> Path | None:
    """PiSSA's adapter as it begins, by which it becomes an adapter of the unchanged base at the end."""
    if method.tune.method != "lora" or method.lora.variant != "pissa":
        return None
    folder = scratch / "initial"
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(str(folder))
    return folder


def gathered(model: Any) -> AbstractContextManager[Any]:
    """Under ZeRO-3, what trains is whole inside this context, on every process."""
    shards = [one for one in model.parameters() if one.requires_grad and hasattr(one, "ds_id")]
    if not shards:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    context: AbstractContextManager[Any] = GatheredParameters(shards)
    return context


def join(settings: TrainingArguments) -> None:
    """Let the processes find one another, and DeepSpeed know of it, which ZeRO-3 needs before it shards the base.

    DeepSpeed else takes each process for the only one while the base loads (transformers 5.23, on CPU).
    """
    import deepspeed

    # Reading the device is what starts torch.distributed.
    assert settings.device.type == pick_device().type
    deepspeed.init_distributed(verbose=False)


def prepared(model: Any, method: methods.Method, checkpointing: bool) -> Any:
    """The base with the method's parameters trainable, and a forward pass that returns the summed loss."""
    supervise(model, checkpointing)
    tuned = methods.prepare(model, method)
    fuse(tuned)
    return tuned


def training_arguments(
    params: Train, deepspeed: DeepSpeed, scratch: Path, steps: int, device: torch.device
) -> TrainingArguments:
    """Everything Trainer and DeepSpeed need; DeepSpeed's "auto" values are filled from the same numbers."""
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
        neftune_noise_alpha=params.neftune_alpha,
        optim="adamw_torch",
        save_strategy="steps",
        save_steps=params.save_steps,
        save_total_limit=3 if params.eval_fraction else 2,
        eval_strategy="steps" if params.eval_fraction else "no",
        eval_steps=params.save_steps,
        load_best_model_at_end=bool(params.eval_fraction),
        metric_for_best_model="eval_loss" if params.eval_fraction else None,
        greater_is_better=False if params.eval_fraction else None,
        logging_steps=params.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[name for name in params.report_to if name != LIVE],
        disable_tqdm=True,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        deepspeed=deepspeed_config(deepspeed),
    )


def batches_of(params: Train, tokens: Tokens, *, line: bool) -> tuple[list[MicroBatch], list[MicroBatch]]:
    """Micro-batches of the run in order, and of the validation rows."""
    rows, held = split(len(tokens), params.eval_fraction, params.seed)
    lengths, learnt = tokens.lengths, tokens.learnt_per_row
    batches = micro_batches(
        lengths[rows],
        learnt[rows],
        batch_size=params.batch_size,
        micro_batch_size=params.micro_batch_size,
        steps=count_steps(len(rows), params.batch_size, params.epochs, params.max_steps),
        seed=params.seed,
        padded=not line,
    )
    batches = [[(int(rows[row]), count) for row, count in batch] for batch in batches]
    ordered = sorted(held.tolist(), key=lambda row: (int(lengths[row]), row))
    total = int(learnt[held].sum())
    size = params.micro_batch_size
    return batches, [[(row, total) for row in ordered[i : i + size]] for i in range(0, len(ordered), size)]


def tokens_per_step(tokens: Tokens, batches: list[MicroBatch], steps: int) -> list[int]:
    sizes = [sum(int(tokens.lengths[row]) for row, _ in batch) for batch in batches]
    per_step = len(batches) // steps
    return [sum(sizes[i : i + per_step]) for i in range(0, len(sizes), per_step)]


def lineage() -> dict[str, Any]:
    """What made the adapter, by content: parameters, base, tokens and the code that trained."""
    sections = (*methods.chosen_method(), load(Train), load(DeepSpeed))
    return {
        "params": {type(section).__name__.lower(): section.model_dump() for section in sections},
        "inputs": combined([TOKENS, BASE / SUMS]),
        "code": stage_code("train"),
    }


def summary(
    model: Any, state: TrainerState, tokens: Tokens, batches: list[MicroBatch], params: Train
) -> dict[str, Any]:
    """metrics/train.json: parameters, what was seen, and how the loss (nats per learnt token) went."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    seen = [row for batch in batches for row, _ in batch][: state.global_step * params.batch_size]
    report = {
        **methods.counts(model),
        "steps": state.global_step,
        "rows_seen": len(seen),
        "tokens": int(tokens.lengths[seen].sum()),
        "learnt_tokens": int(tokens.learnt_per_row[seen].sum()),
        "first_loss": float(f"{losses[0]:.6g}"),
        "last_loss": float(f"{losses[-1]:.6g}"),
        "same_bytes_again": pick_device().type == "cpu" or params.deterministic,
    }
    if params.eval_fraction:
        best = min((entry for entry in state.log_history if "eval_loss" in entry), key=lambda entry: entry["eval_loss"])
        report |= {"best_step": best["step"], "validation_loss": float(f"{best['eval_loss']:.6g}")}
    return report


def _peak(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else peak_memory()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"train: {' '.join(str(error).split())}")
