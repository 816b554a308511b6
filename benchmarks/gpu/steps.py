"""Training steps on one GPU, one setting against another: tokens a second, memory, share of the product's rate.

    python -m benchmarks.gpu.steps [--smoke] [--seconds 480] [--out FILE]

Random weights in the shapes of ChatGLM3-6B (as Glm, 6.2 billion) and of the default base (0.27 billion), bfloat16, LoRA r 16
on all linear layers. Each measurement is a process of its own; when the time is nearly over, those that are left are named
and left out. Needs torch, transformers, peft, pyyaml and pydantic alone. `--smoke`: tiny shapes on whatever is there, a step
each, all in one process and none of them compiled.
"""

import time
from collections.abc import Iterator
from contextlib import chdir
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.checkpoints import CHATGLM3_6B
from benchmarks.hardware import matmul_rate, operations_per_token
from benchmarks.harness import ROOT, ChildError, argument_parser, call_in_child, machine_line, show, table


class Setting(NamedTuple):
    """A model, a batch and a path.

    Path `ours` is packed rows, chunked loss and fused LoRA; `plain` is padded rows, whole logits and PEFT's own layers.
    Attention `rows` is that of packed rows; the plain path has `sdpa` and `eager`. Rows that are `spread` have different
    lengths, from half to whole.
    """

    shape: str = "6B"
    rows: int = 4
    length: int = 512
    path: str = "ours"
    checkpointing: bool = False
    compiled: bool = False
    fused: bool = True
    attention: str = "rows"
    spread: bool = True


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
GEMMA_270M = {
    "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512,
    "query_pre_attn_scalar": 256, "pad_token_id": 0,
}  # fmt: skip
SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
STEPS = 5
COLUMNS = (*Setting._fields, "tokens/s", "peak GB", "of the product's rate", "loss")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one step each")
    parser.add_argument("--seconds", type=float, default=480.0, help="begin no measurement after this")
    parser.add_argument("--out", type=Path, help="Markdown goes there, too")
    options = parser.parse_args()
    start, skipped = time.monotonic(), []

    def rows() -> Iterator[list[object]]:
        for setting in SETTINGS:
            if time.monotonic() - start > options.seconds or (options.smoke and setting.compiled):
                skipped.append(f"\nNot measured: {setting}")
            else:
                yield [*setting, *cells(setting, options.smoke)]

    text = show(chain([f"{machine_line('transformers')}\n"], table(COLUMNS, rows())))
    if options.out:
        options.out.write_text("\n".join([text, *skipped]) + "\n", encoding="utf-8")


def cells(setting: Setting, smoke: bool) -> list[str]:
    """Figures of a setting, or the end of its error: out of memory, mostly."""
    try:
        found = measure(setting, smoke=True) if smoke else call_in_child(measure, setting)
    except ChildError as error:
        reason = str(error).strip().splitlines()[-1]
        return [f"failed: {reason[:160].replace('|', '/')}", "", "", ""]
    rate, peak, share, loss = found
    return [f"{rate:.0f}", f"{peak:.1f}", f"{share:.2f}", f"{loss:.4f}"]


def measure(fields: Any, smoke: bool = False) -> tuple[float, float, float, float]:
    """(tokens/s, peak GB, share of the product's rate, loss) of the steps after the second, on the same random rows."""
    import torch

    setting = Setting(*fields)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.manual_seed(17)
    model, operations = build_model(setting, smoke, device)
    batch, tokens = build_batch(setting, model, smoke, device)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    times = []
    for _ in range(1 if smoke else STEPS):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            # Ours is summed over the supervised tokens, all but the first of a row; transformers' is their mean.
            loss = model(**batch)["loss"] / (1 if setting.path == "plain" else tokens - setting.rows)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    rate = tokens / min(times[2:] or times)
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0
    share = operations * rate / matmul_rate("bfloat16", 256 if smoke else 8192 if on_gpu else 2048, 10)
    return rate, peak, share, float(loss.detach())


def build_config(shape: str, smoke: bool) -> Any:
    from transformers import Gemma3TextConfig, GlmConfig

    from tuneline.models.chatglm.config import native_config, shape_of

    small = SMALL if smoke else {}
    if shape == "0.3B":
        return Gemma3TextConfig(**(GEMMA_270M | small))
    return GlmConfig(**(native_config(shape_of(CHATGLM3_6B), "bfloat16", 0, [2]).to_dict() | small))


def build_model(setting: Setting, smoke: bool, device: Any) -> tuple[Any, int]:
    """(a model ready to train, floating-point operations a token)."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.train.fused.patches import patch_model
    from tuneline.train.gradient_checkpointing import enable_checkpointing
    from tuneline.train.loss_forward import install_loss_forward
    from tuneline.train.methods import prepare

    config = build_config(setting.shape, smoke)
    plain = setting.path == "plain"
    if plain:
        config._attn_implementation = setting.attention
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
    operations = sum(operations_per_token(model))
    if plain:
        model.config.use_cache = False
    else:
        install_loss_forward(model)
    tuned = prepare(model, lora_method())
    if setting.checkpointing:
        enable_checkpointing(model)
    if not plain and setting.fused:
        patch_model(tuned)
    if setting.compiled:
        for layer in model.base_model.layers:
            layer.compile()
    return tuned.train(), operations


def lora_method() -> Any:
    """LoRA of the shipped params, with r 16 and without dropout."""
    from tuneline.runtime.params import load
    from tuneline.train.sections import load_method

    with chdir(ROOT):
        shipped = load_method(load)
    lora = shipped.lora.model_copy(update={"r": 16, "alpha": 32, "dropout": 0.0})
    return shipped._replace(tune=shipped.tune.model_copy(update={"method": "lora"}), lora=lora)


def build_batch(setting: Setting, model: Any, smoke: bool, device: Any) -> tuple[dict[str, Any], int]:
    """(a batch, its real tokens): random ids, every token supervised."""
    import torch

    from tuneline.models.packed_attention import NAME
    from tuneline.models.packing import pack
    from tuneline.train.collate import padded

    longest = 32 if smoke else setting.length
    spread = [longest - longest // 2 * number // setting.rows for number in range(setting.rows)]
    lengths = spread if setting.spread else [longest] * setting.rows
    vocabulary = model.config.vocab_size
    rows = [(ids, ids, 1) for ids in (torch.randint(5, vocabulary - 5, (length,)) for length in lengths)]
    if setting.path == "plain":
        batch = padded(rows, pad=0)
        batch["attention_mask"] = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(length, dtype=torch.long) for length in lengths], batch_first=True
        )
    else:
        model.get_base_model().set_attn_implementation(NAME)
        batch = pack(rows)
    del batch["step_tokens"]
    moved = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
    return moved, sum(lengths)


if __name__ == "__main__":
    main()
