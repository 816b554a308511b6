"""Training steps on one GPU, one setting against another: tokens a second, memory, share of the product's rate.

    python -m benchmarks.gpu [--smoke] [--seconds 480] [--out FILE]

Random weights in the shapes of ChatGLM3-6B (as Glm, 6.2 billion) and of the default base (0.27 billion), bfloat16, LoRA r 16
on all linear layers. Each measurement is a process of its own; when the time is nearly over, those that are left are named
and left out. Needs torch, transformers, peft, pyyaml and pydantic alone. `--smoke`: tiny shapes on whatever is there, a step
each, all in one process and none of them compiled.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks import folder as folders

PARAMS: dict[str, Any] = yaml.safe_load((folders.ROOT / "params.yaml").read_text(encoding="utf-8"))


class Setting(NamedTuple):
    shape: str = "6B"
    rows: int = 4
    length: int = 512
    path: str = "ours"
    """ours: rows in one line, chunked loss, fused LoRA; plain: padded rows, whole logits, PEFT's own layers."""
    checkpointing: bool = False
    compiled: bool = False
    fused: bool = True
    attention: str = "rows"
    """rows (each by torch's kernel), or for the plain path sdpa and eager."""
    spread: bool = True
    """Rows of different length, half to whole."""


SETTINGS = [
    Setting(),
    Setting(path="plain", attention="sdpa"),
    Setting(rows=2, length=1024),
    Setting(rows=2, length=1024, path="plain", attention="sdpa"),
    Setting(rows=2, length=2048),
    Setting(rows=1, length=4096, spread=False),
    Setting(rows=1, length=4096, spread=False, checkpointing=True),
    Setting(rows=1, length=4096, spread=False, path="plain", attention="sdpa"),
    Setting(fused=False),
    Setting(compiled=True),
    Setting(checkpointing=True),
    Setting(path="plain", attention="eager"),
    Setting(shape="0.3B", rows=8),
    Setting(shape="0.3B", rows=8, path="plain", attention="sdpa"),
    Setting(shape="0.3B", rows=32),
    Setting(shape="0.3B", rows=32, compiled=True),
]
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "6B": ("GlmConfig", {
        "vocab_size": 65024, "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 28,
        "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "attention_bias": True,
        "tie_word_embeddings": False, "pad_token_id": 0, "max_position_embeddings": 8192,
    }),
    "0.3B": ("Gemma3TextConfig", {
        "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512,
        "query_pre_attn_scalar": 256, "pad_token_id": 0,
    }),
}  # fmt: skip
SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one step each")
    parser.add_argument("--seconds", type=float, default=480.0, help="begin no measurement after this")
    parser.add_argument("--out", type=Path, help="Markdown goes there, too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(Setting(**json.loads(options.one)), smoke=False)))
        return
    started, lines, left = time.monotonic(), [header()], []
    print(lines[0], flush=True)
    for setting in SETTINGS:
        if time.monotonic() - started > options.seconds or (options.smoke and setting.compiled):
            left.append(setting)
            continue
        lines.append(row(setting, measure(setting, smoke=True) if options.smoke else apart(setting)))
        print(lines[-1], flush=True)
    lines += [f"\nNot measured: {setting}" for setting in left]
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def apart(setting: Setting) -> dict[str, float] | str:
    """What a process of its own measured, or what it said when it failed: out of memory, mostly."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", json.dumps(setting._asdict())]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folders.ROOT)
    return json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else run.stderr


def header() -> str:
    import torch
    import transformers

    what = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    columns = [*Setting._fields, "tokens/s", "peak GB", "of the product's rate", "loss"]
    title = f"{what}, torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def row(setting: Setting, found: dict[str, float] | str) -> str:
    cells = [str(one) for one in setting]
    if isinstance(found, str):
        reason = found.strip().splitlines()[-1] if found.strip() else "no word"
        return f"| {' | '.join(cells)} | failed: {reason[:160].replace('|', '/')} | | | |"
    numbers = [f"{found['tokens_per_second']:.0f}", f"{found['peak_gb']:.1f}", f"{found['share']:.2f}"]
    return f"| {' | '.join([*cells, *numbers])} | {found['loss']:.4f} |"


def measure(setting: Setting, *, smoke: bool) -> dict[str, float]:
    """A few optimizer steps on the same random rows; the rate is that of the steps after the second."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(17)
    model, counted = built(setting, smoke, device)
    batch, real = rows_of(setting, model, smoke, device)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    times = []
    for _ in range(1 if smoke else STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            # Ours is summed over the learnt tokens, all but the first of a row; transformers' is their mean.
            loss = model(**batch)["loss"] / (1 if setting.path == "plain" else real - setting.rows)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    best = min(times[2:] or times)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    share = counted * real / best / product_rate(device, smoke)
    return {"tokens_per_second": real / best, "peak_gb": peak, "share": share, "loss": float(loss.detach())}


def built(setting: Setting, smoke: bool, device: Any) -> tuple[Any, float]:
    """(a model ready to train, floating-point operations a token: 4 for each frozen weight that is multiplied)."""
    import torch
    import transformers

    from tuneline.train import methods
    from tuneline.train.config.freeze import Freeze
    from tuneline.train.config.lora import Lora
    from tuneline.train.config.ptuning import PTuning
    from tuneline.train.config.tune import Tune
    from tuneline.train.fused_lora import fuse
    from tuneline.train.loss_forward import supervise

    kind, values = SHAPES[setting.shape]
    config = getattr(transformers, kind)(**(values | (SMALL if smoke else {})))
    plain = setting.path == "plain"
    if plain:
        config._attn_implementation = setting.attention
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
    multiplied = sum(one.numel() for one in model.parameters()) - model.get_input_embeddings().weight.numel()
    if config.tie_word_embeddings:
        multiplied += model.get_input_embeddings().weight.numel()
    lora = Lora.model_validate(PARAMS["lora"] | {"r": 16, "alpha": 32, "dropout": 0.0})
    method = methods.Method(
        Tune(method="lora"), lora, PTuning.model_validate(PARAMS["ptuning"]), Freeze.model_validate(PARAMS["freeze"])
    )
    if plain:
        model.config.use_cache = False
        if setting.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        supervise(model, setting.checkpointing)
    tuned = methods.prepare(model, method)
    if not plain and setting.fused:
        fuse(tuned)
    if setting.compiled:
        for layer in model.base_model.layers:
            layer.compile()
    return tuned.train(), 4.0 * multiplied


def rows_of(setting: Setting, model: Any, smoke: bool, device: Any) -> tuple[dict[str, Any], int]:
    """(a batch, its real tokens): random ids, every token learnt."""
    import torch

    from tuneline.train.collate import in_line, padded
    from tuneline.train.packed_attention import NAME

    longest = 32 if smoke else setting.length
    spread = [longest - longest // 2 * number // setting.rows for number in range(setting.rows)]
    lengths = spread if setting.spread else [longest] * setting.rows
    words = model.config.vocab_size
    rows = [(ids, ids, 1) for ids in (torch.randint(5, words - 5, (length,)) for length in lengths)]
    if setting.path == "plain":
        batch = padded(rows, pad=0)
        batch["attention_mask"] = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(length, dtype=torch.long) for length in lengths], batch_first=True
        )
    else:
        model.get_base_model().set_attn_implementation(NAME)
        batch = in_line(rows)
    del batch["step_tokens"]
    moved = {name: one.to(device) if hasattr(one, "to") else one for name, one in batch.items()}
    return moved, sum(lengths)


def product_rate(device: Any, smoke: bool) -> float:
    """Floating-point operations a second of a bfloat16 product, the best of some, in this process."""
    import torch

    size = 256 if smoke else 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        _ = one @ other
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
