"""What a training run will take, before it is paid for: parameters, steps, memory with its parts, and time.

    python -m tuneline.cli.plan                       the current params, the base and the tokens that `dvc repro tokenize` made
    python -m tuneline.cli.plan --config config.json  memory alone, for an architecture without its weights

Exits with 1 when the run would not fit, saying what to change.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tuneline.cli.memory import Step
    from tuneline.formats.token_file import Tokens

GB = 1e9
CPU_FIXED = 0.13 * GB
"""What oneDNN and DeepSpeed hold on a CPU beside tensors; measured, see benchmarks/results/*-plan.md."""
CPU_KEPT = 0.17
"""Share of what is in use that the C library and oneDNN's reordered copies hold on top of it; measured likewise."""


class Workload(NamedTuple):
    """What the training rows are like."""

    steps: int
    tokens: int
    """Of the run, without padding."""
    lengths: tuple[int, ...]
    """Of the rows of the longest micro-batch."""
    learnt: int
    """Tokens with loss in it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tuneline.cli.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="config.json of a transformers model, or of ChatGLM2 or ChatGLM3")
    options = parser.parse_args()
    # Of libraries about one another's deprecations, which no user can mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        fits = show(options.config)
    except (ValueError, OSError) as error:
        sys.exit(f"plan: {' '.join(str(error).split())}")
    sys.exit(0 if fits else 1)


class Prediction(NamedTuple):
    """What is run, on what, and what it holds in memory."""

    config: Any
    method: Any
    train: Any
    device: Any
    dtype: str
    processes: int
    rows: Workload | None
    """None for a shape without tokens."""
    parts: dict[str, float]
    """Bytes of one process, by part and together."""
    line: bool
    """Whether rows lie end to end."""


def show(shape: Path | None) -> bool:
    """Print the plan; returns whether it fits."""
    plan = predict(shape)
    title = f"{plan.config.model_type}, {plan.method.tune.method}, {plan.dtype}, {plan.device.type}"
    report(title, facts(plan.config, plan.method, plan.train, plan.rows), plan.parts)
    fits = judge(plan.parts["together"], plan.processes, plan.device)
    if plan.rows is not None and fits:
        estimate(plan.method, plan.train, plan.dtype, plan.rows, plan.processes, line=plan.line)
    return fits


def predict(shape: Path | None) -> Prediction:
    """The run of the current params; with `shape`, a config.json, of that architecture and the longest rows allowed."""
    from tuneline.formats.token_file import Tokens
    from tuneline.models.loading import BASE, pick_device, pick_dtype
    from tuneline.runtime.params import load
    from tuneline.tokenize.config import Tokenize
    from tuneline.train.collate import in_one_line
    from tuneline.train.config.deepspeed import DeepSpeed
    from tuneline.train.config.train import Train
    from tuneline.train.launch import count_processes
    from tuneline.train.methods import chosen_method, refuse
    from tuneline.train.run import TOKENS

    train, deepspeed = load(Train), load(DeepSpeed)
    method = chosen_method()
    refuse(method, train)
    device = pick_device()
    dtype = str(pick_dtype(train.dtype, device, "train.dtype")).removeprefix("torch.")
    processes = count_processes(deepspeed, train.batch_size // train.micro_batch_size)
    longest = load(Tokenize).max_tokens
    tokens = None if shape else Tokens(TOKENS)
    config = read_config(shape or BASE / "config.json")
    line = in_one_line(config, method, train.neftune_alpha)
    rows = None if tokens is None else run_rows(train, tokens, line=line)
    most = Workload(0, 0, (longest,) * train.micro_batch_size, longest * train.micro_batch_size)
    step = measured(config, method, train, rows or most, dtype, line=line)
    parts = per_process(step, method.lora.quantize, deepspeed.zero_stage, processes, on_cpu=device.type == "cpu")
    return Prediction(config, method, train, device, dtype, processes, rows, parts, line)


def measured(config: Any, method: Any, train: Any, rows: Workload, dtype: str, *, line: bool) -> "Step":
    from tuneline.cli.memory import measure

    return measure(
        config,
        method,
        lengths=rows.lengths,
        learnt=rows.learnt,
        dtype=dtype,
        checkpointing=train.gradient_checkpointing,
        line=line,
    )


def per_process(step: "Step", quantize: str | None, stage: int, processes: int, *, on_cpu: bool) -> dict[str, float]:
    """Bytes by part of one process, after sharding (Rajbhandari et al. 2019), and together."""
    shards = [processes if stage >= needed else 1 for needed in (1, 2, 3)]
    # Of the base's weights nearly all are in linear layers, which is what is quantised.
    stored = {"nf4": 0.53 / 2, "int8": 0.51, None: 1.0}[quantize]
    parts = {
        "weights": step.weights * stored / shards[2],
        # From stage 1 on DeepSpeed keeps its part of the gradients, and a float32 copy of its parameters, once more.
        "adapter and gradients": step.trained / shards[2]
        + step.gradients / shards[1]
        + (step.gradients / shards[0] if stage else 0),
        "optimizer": (step.optimizer + (step.trained if stage else 0)) / shards[0],
        "activations": float(step.activations),
        "logits and the like": float(step.temporary),
    }
    if on_cpu:
        parts["libraries"] = libraries()
        parts["kept by malloc"] = CPU_FIXED + CPU_KEPT * (step.weights + step.activations + step.temporary)
    return parts | {"together": sum(parts.values())}


def libraries() -> float:
    """Resident bytes of a process that has only imported what training needs."""
    import tuneline

    program = "import tuneline.train.run, psutil; print(psutil.Process().memory_info().rss)"
    root = str(Path(next(iter(tuneline.__path__))).parent)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    return float(result.stdout.split()[-1])


def read_config(path: Path) -> Any:
    """The transformers config at a path; a ChatGLM2's or ChatGLM3's becomes the native one."""
    from transformers import AutoConfig

    from tuneline.models.chatglm.config import is_chatglm, native_config, shape_of

    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro base`, or give --config for memory alone")
    values = json.loads(path.read_text(encoding="utf-8"))
    if is_chatglm(values):
        return native_config(shape_of(values), "bfloat16", 0, [2])
    return AutoConfig.for_model(values.pop("model_type"), **values)


def run_rows(train: Any, tokens: "Tokens", *, line: bool) -> Workload:
    """What the run will see."""
    from tuneline.train.run import batches_of

    batches, _ = batches_of(train, tokens, line=line)
    lengths, learnt = tokens.lengths, tokens.learnt_per_row

    def size(batch: list[tuple[int, int]]) -> int:
        sizes = [int(lengths[row]) for row, _ in batch]
        return sum(sizes) if line else len(sizes) * max(sizes)

    widest = max(batches, key=size)
    return Workload(
        steps=len(batches) * train.micro_batch_size // train.batch_size,
        tokens=sum(int(lengths[row]) for batch in batches for row, _ in batch),
        lengths=tuple(int(lengths[row]) for row, _ in widest),
        learnt=sum(int(learnt[row]) for row, _ in widest),
    )


def facts(config: Any, method: Any, train: Any, rows: Workload | None) -> dict[str, str]:
    """Parameters and steps, in words."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.cli.memory import without_data
    from tuneline.train.methods import counts, prepare

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        counted = counts(prepare(model.requires_grad_(False), without_data(method)))
    result = {
        "parameters": f"{counted['total_parameters']:,}",
        "trainable": f"{counted['trainable_parameters']:,} ({counted['trainable_share']:.3%})",
    }
    if counted.get("trainable_parameters_as_chatglm"):
        result["as ChatGLM counts"] = f"{counted['trainable_parameters_as_chatglm']:,}"
    if rows is not None:
        result |= {"optimizer steps": f"{rows.steps:,}", "tokens of the run": f"{rows.tokens:,}"}
        result["most at a time"] = f"{sum(rows.lengths)} tokens in {len(rows.lengths)} rows"
    return result


def report(title: str, known: dict[str, str], parts: dict[str, float]) -> None:
    print(title)
    for name, value in known.items():
        print(f"  {name:<24}{value:>18}")
    print("highest memory of a process, predicted")
    for name, size in parts.items():
        print(f"  {name:<24}{size / GB:>15.2f} GB")


def judge(need: float, processes: int, device: Any) -> bool:
    """Print whether it fits what is there; returns it."""
    import psutil
    import torch

    if device.type == "cuda":
        have, what = float(torch.cuda.mem_get_info(device)[0]), "free on the GPU"
    else:
        have, what = psutil.virtual_memory().available / processes, "free for each process"
    fits = need < have
    print(f"  {what:<24}{have / GB:>15.2f} GB: {'it fits' if fits else 'IT DOES NOT FIT'}")
    if not fits:
        print(
            "  to change: a smaller train.micro_batch_size or tokenize.max_tokens; train.gradient_checkpointing: true;"
        )
        print("  lora.quantize: nf4; with several GPUs deepspeed.zero_stage: 3")
    return fits


def estimate(method: Any, train: Any, dtype: str, rows: Workload, processes: int, *, line: bool) -> None:
    """Run two steps of the real work on this machine, alone, and print how long all will take."""
    import torch
    from accelerate.utils import send_to_device

    from tuneline.formats.token_file import Tokens
    from tuneline.models import cpu_tuning as cpu
    from tuneline.models.loading import BASE, load_model, pick_device
    from tuneline.train.collate import collator
    from tuneline.train.run import TOKENS, batches_of, prepared
    from tuneline.train.trainer import Rows

    tokens, device = Tokens(TOKENS), pick_device()
    stored = Rows(tokens)
    batches, _ = batches_of(train, tokens, line=line)
    per_step = train.batch_size // train.micro_batch_size
    if device.type == "cpu":
        cpu.keep_few_kernels()
        cpu.give_back_large_blocks()
    kind = getattr(torch, dtype)
    base = load_model(BASE, kind, device)
    collate = collator(base, line=line)
    model = prepared(base, method, train.gradient_checkpointing).train()
    optimizer = torch.optim.AdamW(one for one in model.parameters() if one.requires_grad)
    seconds = 0.0
    for first in (0, per_step):
        started, seen = time.monotonic(), 0
        for batch in batches[first : first + per_step] or batches[:per_step]:
            inputs = send_to_device(collate([stored[row] for row in batch]), device)
            learnt = inputs.pop("step_tokens")
            with torch.autocast(device.type, kind, enabled=kind != torch.float32):
                (model(**inputs)["loss"] / learnt).backward()
            seen += sum(int(tokens.lengths[row]) for row, _ in batch)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
    rate = seen / seconds
    print("time, from two steps of this run on this machine")
    print(f"  {'one step':<24}{seconds:>16.1f} s")
    print(
        f"  {'tokens a second':<24}{rate:>18.0f}" + (f", times {processes} processes at best" if processes > 1 else "")
    )
    print(f"  {'training':<24}{_clock(rows.tokens / rate / processes):>18}")


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"


if __name__ == "__main__":
    main()
