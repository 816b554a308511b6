"""A training process: Hugging Face Trainer on DeepSpeed; the method's parameters train, the rest is frozen.

    python -m stages.train            (one process on a CPU is its own; else a launcher starts one per device)

What is frozen is in the compute dtype, what trains and the optimizer are float32, and the forward pass runs
under autocast: DeepSpeed's own bf16 mode stays off, because it would cast the adapter and lose small updates.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from logging import ERROR, getLogger
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerState, set_seed
from transformers.utils import logging

from tuneline.formats.token_file import Tokens
from tuneline.models import cpu_tuning
from tuneline.models.head_loss.gradient_filter import GradientFilter
from tuneline.models.loading import device_name, load_model, pick_device, pick_dtype
from tuneline.models.packing import packing_is_exact
from tuneline.models.untrusted.native_config import config_of
from tuneline.runtime.atomic import to_json
from tuneline.runtime.errors import exit_with_sentence
from tuneline.runtime.machine import machine_info, peak_memory
from tuneline.runtime.process import exit_with_parent
from tuneline.runtime.stage import quiet_deprecations
from tuneline.runtime.stopping import STATUS
from tuneline.runtime.storage.failures import writing
from tuneline.train import methods
from tuneline.train.batching import Step, batches_of, longest_micro_batch, tokens_per_step
from tuneline.train.checkpoints import RUN_INFO, require_training_room
from tuneline.train.collate import collator, rows_packed
from tuneline.train.config.train import Train
from tuneline.train.deepspeed_config import shards_in
from tuneline.train.fused.patches import patch_model
from tuneline.train.gradient_checkpointing import enable_checkpointing
from tuneline.train.loss_forward import install_loss_forward
from tuneline.train.process_arguments import Command, Paths, from_arguments
from tuneline.train.sections import Method, TrainingConfig
from tuneline.train.start import load_start
from tuneline.train.trainer.arguments import grow_segments, init_distributed, training_arguments
from tuneline.train.trainer.autocast import autocast_forward
from tuneline.train.trainer.callbacks import GracefulStopCallback, ManifestCallback
from tuneline.train.trainer.connection import connection_errors
from tuneline.train.trainer.heartbeat import hosts_watched
from tuneline.train.trainer.longest_first import LongestFirstCallback
from tuneline.train.trainer.loss_scaling import LossScaling
from tuneline.train.trainer.progress import Progress
from tuneline.train.trainer.reporting import report_callbacks
from tuneline.train.trainer.supervised_trainer import SupervisedTrainer
from tuneline.train.validation.answering import prepare_answering
from tuneline.train.validation.curve_metrics import BestBy, best_by, best_step, curve_metrics


def main() -> None:
    command = from_arguments(description=__doc__)
    if command.parent:
        exit_with_parent(command.parent)
    grow_segments()
    quiet_deprecations()
    with exit_with_sentence("train"):
        run(command)


def run(command: Command) -> None:
    """Train, in this process or the stage's own. Raises SystemExit, with a shell's status, when a signal has ended it early."""
    logging.set_verbosity_error()
    # It says that it takes DeepSpeed's accumulation steps, as it should.
    getLogger("accelerate").setLevel(ERROR)
    with connection_errors(), writing(command.paths.scratch):
        train(command.config, command.paths, command.resume)


def train(config: TrainingConfig, paths: Paths, resume: Path | None, callbacks: Sequence[Any] = ()) -> None:
    """Train to the end, or to a checkpoint when a signal comes; `callbacks` are the first process's own."""
    method, params, _ = config
    device = pick_device()
    if device.type == "cpu":
        cpu_tuning.disable_shm_op()
        cpu_tuning.limit_onednn_caches()
        cpu_tuning.release_large_blocks()
    tokens = Tokens(paths.tokens)
    values = json.loads((paths.base / "config.json").read_text(encoding="utf-8"))
    packed = rows_packed(config_of(values), config)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps, validation = batches_of(params, tokens, packed=packed is not False, processes=processes)
    metrics = curve_metrics(params.eval_metrics)
    best = best_by(params, metrics) if validation else None
    arguments = training_arguments(config, paths.scratch, len(steps), device, best)
    init_distributed(arguments)
    make_deterministic(params, device)
    set_seed(params.seed)
    dtype = pick_dtype(params.dtype, device, "train.dtype", values)
    with shards_in(dtype):
        # PiSSA's beginning is computed anew when a run goes on, and must be the same: on the CPU it is.
        base = load_model(paths.base, dtype, None if is_pissa(method) else device, method.lora.quantize)
    exact = packing_is_exact(base) if packed is None else packed
    if packed is None and not exact:
        steps, validation = batches_of(params, tokens, packed=False, processes=processes)
    answering = prepare_answering(params, metrics, tokens, paths, base, dtype, len(steps))
    collate = collator(base, packed=exact)
    gradient_filter = GradientFilter() if params.loss_filter == "auto" else None
    model = prepare_model(base, method, params.gradient_checkpointing is True, gradient_filter)
    require_training_room(methods.counts(model)["trainable_parameters"], paths.adapter, paths.scratch)
    autocast_forward(model, device, dtype)
    if paths.init is not None and resume is None:
        # A checkpoint has it already, and what was learnt since.
        with gathered(model, modifier=0):
            load_start(model, paths.init, method)
    initial = save_initial(model, method, paths.scratch)
    scaling = LossScaling() if dtype == torch.float16 else None
    columns = [metric.column for metric in metrics]
    progress = Progress(paths.curve, tokens_per_step(tokens, steps), scaling, columns)
    trainer = SupervisedTrainer(
        model=model, args=arguments, tokens=tokens, steps=steps, validation=validation, collate=collate,
        loraplus_lr_ratio=method.lora.loraplus_ratio if is_loraplus(method) else None, scaling=scaling,
        answering=answering,
    )  # fmt: skip
    if tries_longest(device):
        longest = longest_micro_batch(steps, tokens.lengths, packed=exact)
        batch = collate([trainer.rows[row] for row in longest])
        trainer.add_callback(LongestFirstCallback(model, batch, params))
    stop = GracefulStopCallback()
    trainer.remove_callback(PrinterCallback)
    patience = [] if params.early_stopping is None else [EarlyStoppingCallback(params.early_stopping)]
    first = [progress, *report_callbacks(config, paths), *callbacks] if trainer.is_world_process_zero() else []
    for callback in (stop, ManifestCallback(), *patience, *first):
        trainer.add_callback(callback)
    with hosts_watched():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if stop.requested:
        sys.exit(STATUS + (stop.signal or SIGTERM))
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    with gathered(tuned):
        if trainer.is_world_process_zero():
            report = summary(tuned, trainer.state, tokens, steps, best)
            with writing(paths.adapter):
                methods.save(tuned, method, paths.adapter, initial)
            paths.metrics.write_text(to_json(report), encoding="utf-8")
    if trainer.is_world_process_zero():
        info = {"tokens_per_second": round(progress.tokens_per_second(trainer.state), 1), "dtype": str(dtype)}
        info |= {"device": device_name(device), "peak_memory_gb": _peak(device), "resumed": resume is not None}
        info |= {"micro_tokens": params.micro_tokens, "gradient_checkpointing": params.gradient_checkpointing}
        info |= {"first_step_at": progress.first_step_at}
        info |= {"deterministic": device.type == "cpu" or params.deterministic}
        info |= {} if gradient_filter is None else gradient_filter.report()
        info |= {} if answering is None else answering.report()
        if scaling is not None:
            info |= {"loss_scale": scaling.scale, "overflows": scaling.overflows}
        (paths.scratch / RUN_INFO).write_text(json.dumps(info | machine_info()), encoding="utf-8")


def tries_longest(device: torch.device) -> bool:
    """Whether the longest micro-batch is tried first: on a CPU, where the machine swaps or kills, no error would tell."""
    return device.type == "cuda"


def make_deterministic(params: Train, device: torch.device) -> None:
    """On GPUs with train.deterministic: only kernels that give the same bytes each time; others raise an error."""
    if params.deterministic and device.type == "cuda":
        # cuBLAS reads this when it starts (its documentation, "Results reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def prepare_model(
    model: Any, method: Method, checkpointing: bool, gradient_filter: GradientFilter | None = None
) -> Any:
    """The base with the method's parameters trainable, and a forward pass that returns the summed loss."""
    install_loss_forward(model, gradient_filter=gradient_filter)
    tuned = methods.prepare(model, method)
    if checkpointing:
        enable_checkpointing(model)
    patch_model(tuned)
    return tuned


def is_loraplus(method: Method) -> bool:
    return method.tune.method == "lora" and method.lora.variant == "loraplus"


def is_pissa(method: Method) -> bool:
    return method.tune.method == "lora" and method.lora.variant == "pissa"


def save_initial(model: Any, method: Method, scratch: Path) -> Path | None:
    """PiSSA's adapter as it begins, by which it becomes an adapter of the unchanged base at the end."""
    if not is_pissa(method):
        return None
    folder = scratch / "initial"
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(str(folder))
    return folder


def gathered(model: Any, modifier: int | None = None) -> AbstractContextManager[Any]:
    """Under ZeRO-3, what trains is whole inside this context, on every process; `modifier` is the rank whose changes stay."""
    shards = [parameter for parameter in model.parameters() if parameter.requires_grad and hasattr(parameter, "ds_id")]
    if not shards:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    context: AbstractContextManager[Any] = GatheredParameters(shards, modifier_rank=modifier)
    return context


def summary(
    model: Any, state: TrainerState, tokens: Tokens, steps: list[Step], best: BestBy | None = None
) -> dict[str, Any]:
    """metrics/train.json: parameters, what was seen, and how the loss (nats per supervised token) went."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    seen = [row for step in steps[: state.global_step] for batch in step for row, _ in batch]
    return {
        **{name: count for name, count in methods.counts(model).items() if name != "trainable_share"},
        "steps": state.global_step,
        "rows_seen": len(seen),
        "supervised_tokens": int(tokens.supervised_per_row[seen].sum()),
        "first_loss": float(f"{losses[0]:.6g}"),
        "last_loss": float(f"{losses[-1]:.6g}"),
    } | best_step(state.log_history, best)


def _peak(device: torch.device) -> float:
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else peak_memory()


if __name__ == "__main__":
    main()
