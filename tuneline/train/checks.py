"""Checks before any training process starts: mistakes that a library would report after minutes, or never."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.runtime.hashing import SUMS
from tuneline.runtime.terminal.lines import say
from tuneline.train.config.train import Train
from tuneline.train.sections import TrainingConfig, check_method_options
from tuneline.train.start import Start, check_start, find_start


class Placement(NamedTuple):
    """Where a run trains."""

    processes: int
    """Over all hosts."""
    device: dict[str, str]
    """{"dtype", "device"} of the computation, which decide rounding."""
    start: Start | None
    """The adapter that training goes on from."""


def check(config: TrainingConfig, tokens: Path, base: Path, records: Path | None = None) -> Placement:
    """Raises ValueError for what can't be trained so, or not here. records: train.jsonl, for metrics of answers."""
    from tuneline.models.loading import device_name, pick_device, pick_dtype
    from tuneline.train import deepspeed_config
    from tuneline.train.batching import check_division, most_processes
    from tuneline.train.launch import count_processes
    from tuneline.train.trainer.reporting import check_reports
    from tuneline.train.validation.checks import check_validation

    method, train, deepspeed = config
    check_method_options(method, train)
    deepspeed_config.check(deepspeed)
    check_reports(train.report_to)
    if method.tune.method == "lora" and method.lora.quantize and deepspeed.zero_stage == 3:
        raise ValueError(
            f"lora.quantize is {method.lora.quantize} and deepspeed.zero_stage is 3, expected 0, 1 or 2: a quantised base is "
            "never sharded; or set lora.quantize: null, and ZeRO-3 shards the whole one"
        )
    device = pick_device()
    on_gpu = device.type == "cuda"
    processes = count_processes(deepspeed, most_processes(train, on_gpu=on_gpu))
    check_division(train, processes, on_gpu=on_gpu)
    pick_dtype(train.dtype, device, "train.dtype")
    for path in (tokens, base / SUMS):
        if not path.is_file():
            raise ValueError(f"{path} is missing: run `dvc repro`, which makes it")
    values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    dtype = pick_dtype(train.dtype, device, "train.dtype", values)
    check_method(method.tune.method, values)
    if method.tune.method == "lora":
        check_rank(method.lora.r, values)
    check_replay(train, tokens)
    check_validation(config, tokens, records)
    start = find_start(train, base)
    if start is not None:
        check_start(start, method, base)
    return Placement(processes, {"dtype": str(dtype), "device": device_name(device)}, start)


def check_replay(train: Train, tokens: Path) -> None:
    """Say how many rows of which arrivals are trained on. Raises ValueError where none is of an earlier arrival."""
    if train.replay is None:
        return
    from tuneline.formats.token_file import NEWEST, Tokens
    from tuneline.train.batching import replayed

    rows = Tokens(tokens)
    _, taken = replayed(rows, train.replay)
    earlier = int((rows.replay != NEWEST).sum())
    newest = int(((rows.replay == NEWEST) & (rows.weights > 0)).sum())
    say(
        f"train: {newest} rows of the newest arrival, {taken} of {earlier} earlier ones (train.replay {train.replay:g})"
    )


def check_rank(rank: int, base: Mapping[str, Any]) -> None:
    """Raises ValueError for a rank above the width of a base of this config.json: the product could have no such rank."""
    width = (base.get("text_config") or base).get("hidden_size")
    if isinstance(width, int) and rank > width:
        raise ValueError(f"lora.r is {rank}, expected at most {width}, which is the width (hidden_size) of the base")


def check_method(name: str, base: Mapping[str, Any]) -> None:
    """Raises ValueError for a method that a base of this config.json can't be trained with."""
    from tuneline.models.packing import ATTENTIONS

    others = sorted(set(base.get("layer_types") or ()) - ATTENTIONS)
    why = None
    if name == "prefix" and others:
        why = f"layers of this base are no attention ({', '.join(others)}) and take no keys and values"
    elif name == "prefix" and base.get("kv_lora_rank"):
        why = "this base's attention has keys and values of a latent form (kv_lora_rank), which PEFT has no prefix for"
    elif name in ("prompt", "p_tuning") and base.get("hidden_size_per_layer_input"):
        why = "this base embeds words for each layer anew, which virtual tokens are none of"
    if why:
        raise ValueError(f"tune.method is {name}, and {why}; expected lora, freeze or full")
