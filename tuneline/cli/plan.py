"""`tuneline plan`: what the current params need, and whether this or a described machine has it."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from tuneline.cli.machine import GB, Machine, answering_facts, described_machine, facts, this_machine
from tuneline.cli.prediction import Prediction, export_memory, parameter_facts, predict
from tuneline.runtime.params import load
from tuneline.runtime.stage import quiet_deprecations
from tuneline.sections import check_sections
from tuneline.train.config.train import Train

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@app.command()
def plan(
    config: Annotated[
        Path | None, typer.Option(help="The config.json of a transformers model, ChatGLM2 or ChatGLM3: memory alone.")
    ] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="GB of a GPU of another machine than this one.")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of that machine.")] = 1,
    capability: Annotated[
        str, typer.Option(help="Their compute capability: 7.0 (V100) and 7.5 (T4, RTX 2080) have no bfloat16.")
    ] = "8.0",
    time: Annotated[bool, typer.Option(help="Run two steps, and say how long training will take.")] = True,
) -> None:
    """Predict parameters, steps, memory and time of the current params, before they are paid for.

    Reads params.yaml, the base and the tokens that `dvc repro tokenize` made; with --config an architecture without its
    weights. Exits with 1 when the run would not fit, saying what to change.
    """
    quiet_deprecations()
    if gpu_memory is None:
        show("this machine", facts())
        machine = this_machine()
    else:
        machine = described_machine(gpu_memory, gpus, capability)
    check_sections(load)
    prediction = predict(config, machine)
    title = f"{prediction.model_config.model_type}, {prediction.config.method.tune.method}, {prediction.dtype}"
    show(f"the run: {title} on {machine.device.type}", parameter_facts(prediction))
    if prediction.auto:
        print(f"auto: {prediction.auto}")
    if prediction.workload is not None and prediction.workload.answers:
        print(f"validation: {prediction.workload.answers}")
    show("highest memory of a process, predicted", gigabytes(prediction.parts | {"together": prediction.total}))
    reasons = [*memory_reasons(prediction, machine), *([] if machine.described else other_reasons(prediction))]
    for reason in reasons:
        print(f"IT DOES NOT FIT: {reason}")
    if reasons:
        raise typer.Exit(1)
    print("it fits")
    if time and prediction.workload is not None and not machine.described:
        show_time(prediction)


def memory_reasons(prediction: Prediction, machine: Machine) -> list[str]:
    """Why training would not fit into memory, with what can still be changed; prints what there is."""
    have = machine.memory if machine.device.type == "cuda" else machine.memory / prediction.processes
    what = "a GPU has" if machine.described else "free on the GPU" if machine.device.type == "cuda" else "free for each"
    print(f"  {what:<24}{have / GB:>15.2f} GB")
    if prediction.total < have:
        return []
    return [
        f"training needs {prediction.total / GB:.1f} GB, {have / GB:.1f} are there; {'; '.join(advice(prediction))}"
    ]


def advice(prediction: Prediction) -> list[str]:
    """What of the params could still lower memory."""
    method, train, deepspeed = prediction.config
    possible = {
        "train.micro_batch_size: 1": train.micro_tokens is None and train.micro_batch_size > 1,
        "a smaller train.micro_tokens": train.micro_tokens is not None and load(Train).micro_tokens != "auto",
        "train.gradient_checkpointing: true": not train.gradient_checkpointing,
        "lora.quantize: nf4": method.tune.method == "lora"
        and not method.lora.quantize
        and prediction.dtype != "float32",
        "deepspeed.zero_stage: 3": prediction.processes > 1 and deepspeed.zero_stage < 3,
        "tune.method: lora": method.tune.method == "full",
        "a smaller tokenize.max_tokens": True,
    }
    return [f"try {' or '.join(change for change, helps in possible.items() if helps)}"]


def other_reasons(prediction: Prediction) -> list[str]:
    """Why export or the disk of this machine would not do; prints what they need."""
    import psutil

    params = json.loads(Path("metrics/base.json").read_text()) if Path("metrics/base.json").is_file() else None
    if params is None or prediction.workload is None:
        return []
    stored = BYTES[params["dtype"]]
    memory = export_memory(prediction.model_config, stored)
    # Base and merged model, each in the workspace and in DVC's cache.
    disk = 4.0 * stored * params["parameters"]
    show("other stages", gigabytes({"export, memory": memory, "models, disk": disk}) | answering_facts())
    total, free = psutil.virtual_memory().total, shutil.disk_usage(".").free
    found = []
    if memory > total:
        found.append(f"export needs {memory / GB:.1f} GB of memory, this machine has {total / GB:.1f}")
    models = Path("models/merged").is_dir()
    if disk > free and not models:
        found.append(f"the models take {disk / GB:.1f} GB of disk, {free / GB:.1f} are free")
    return found


def show_time(prediction: Prediction) -> None:
    from tuneline.cli.step_benchmark import seconds_and_rate

    assert prediction.workload is not None
    seconds, rate = seconds_and_rate(prediction)
    several = f", times {prediction.processes} processes at best" if prediction.processes > 1 else ""
    training = clock(prediction.workload.tokens / rate / prediction.processes)
    rows = {"one step": f"{seconds:.1f} s", "tokens a second": f"{rate:.0f}{several}", "training": training}
    show("time, from two steps of this run on this machine", rows)


def show(title: str, rows: dict[str, str]) -> None:
    print(title)
    for name, value in rows.items():
        print(f"  {name:<24}{value:>18}")


def gigabytes(sizes: dict[str, float]) -> dict[str, str]:
    return {name: f"{size / GB:.2f} GB" for name, size in sizes.items()}


def clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"
