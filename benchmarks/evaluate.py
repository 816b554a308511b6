"""Batched generation of the held-out answers, against one `generate` call for each question, in the same run.

    python -m benchmarks.evaluate                 base and tuned model on all held-out items, in float32
    python -m benchmarks.evaluate --items 8 --dtype bfloat16

Needs a pipeline that has run (models/base, models/adapter, data/processed/heldout.jsonl). Both ways load the model once and
say the same in float32, which is counted. The last column is the share of the memory's bandwidth that reading all
weights once for each new token of a batch comes to. Markdown on standard output.
"""

import time
from typing import Any, NamedTuple

from benchmarks.hardware import memory_bandwidth
from benchmarks.harness import ROOT, argument_parser, require_file, show, table

COLUMNS = ("", "one by one, s", "batched, s", "ratio", "tokens/s", "same answers", "share of the bandwidth")


class Generation(NamedTuple):
    """Answers to all questions at one batch size; `passes` are forward passes of one token for each row of a batch."""

    seconds: float
    answers: list[tuple[str, bool]]
    new_tokens: int
    passes: int


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    import torch

    from tuneline.formats.records import read_heldout
    from tuneline.models.cpu_tuning import retain_freed_blocks
    from tuneline.models.loading import ADAPTER, BASE, load_adapter, load_model, pick_device

    heldout = ROOT / "data/processed/heldout.jsonl"
    for needed in (heldout, ROOT / BASE / "config.json", ROOT / ADAPTER):
        require_file(needed, "run `make repro` first")
    retain_freed_blocks()
    device = pick_device()
    questions = [record["messages"][:-1] for record in read_heldout(heldout)][: options.items]
    model = load_model(ROOT / BASE, getattr(torch, options.dtype), device)
    bandwidth = memory_bandwidth(max(model.parameters(), key=lambda weight: weight.numel()))
    print(
        f"{len(questions)} questions, up to {options.max_new_tokens} new tokens, {options.dtype}, {device.type}, "
        f"memory read at {bandwidth / 1e9:.1f} GB/s\n"
    )
    loaded = {"base": lambda: model, "tuned": lambda: load_adapter(model, ROOT / ADAPTER)}
    show(table(COLUMNS, (compare(load(), questions, options, bandwidth, name) for name, load in loaded.items())))


def compare(model: Any, questions: list[Any], options: Any, bandwidth: float, label: str) -> list[str]:
    single, batched = (answer(model, questions, options, rows, label) for rows in (1, options.batch_size))
    same = sum(first == second for first, second in zip(single.answers, batched.answers, strict=True))
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return [
        label,
        *(f"{number:.1f}" for number in (single.seconds, batched.seconds, single.seconds / batched.seconds)),
        f"{batched.new_tokens / batched.seconds:.0f}",
        f"{same} of {len(questions)}",
        f"{batched.passes * size / batched.seconds / bandwidth:.2f}",
    ]


def answer(model: Any, questions: list[Any], options: Any, batch_size: int, label: str) -> Generation:
    """Tuneline's own answers; a batch size of one is the loop that they are measured against."""
    from tuneline.evaluate.config import Evaluate
    from tuneline.evaluate.predict import Model, generate
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import BASE, load_tokenizer

    tokenizer = load_tokenizer(ROOT / BASE)
    prompter = load_prompter(tokenizer)
    params = Evaluate(
        max_new_tokens=options.max_new_tokens, max_thinking_tokens=1, batch_size=batch_size, dtype=options.dtype,
        constrain=None,
    )  # fmt: skip
    passes: list[None] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *_: passes.append(None))
    start = time.monotonic()
    answers, times = generate(
        Model(model, tokenizer, {}), prompter, questions, params, f"{label}, {batch_size} at a time"
    )
    seconds = time.monotonic() - start
    hook.remove()
    texts = [(output.text, output.stopped_at_eos) for output in answers]
    return Generation(seconds, texts, sum(batch.tokens for batch in times), len(passes))


if __name__ == "__main__":
    main()
