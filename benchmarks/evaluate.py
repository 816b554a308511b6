"""Answering the held-out questions in batches, against one `generate` call for each question, in the same run.

    python -m benchmarks.evaluate                 base and tuned model on all held-out items, in float32
    python -m benchmarks.evaluate --items 8 --dtype bfloat16

Needs a pipeline that has run (models/base, models/adapter, data/processed/heldout.jsonl). Both ways load the model once and
say the same in float32, which is counted. The last column is the share of the memory's bandwidth that reading all
weights once for each new token of a batch comes to. Markdown on standard output.
"""

import argparse
import sys
import time
from typing import Any, NamedTuple

from benchmarks.folder import ROOT


class Way(NamedTuple):
    """One way to answer all questions."""

    seconds: float
    answers: list[tuple[str, bool]]
    new_tokens: int
    passes: int
    """Forward passes of one token for each row of a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    import torch

    from tuneline.evaluate.config import Evaluate
    from tuneline.formats.records import read_heldout
    from tuneline.models.chat_format import Prompter
    from tuneline.models.cpu_tuning import keep_blocks
    from tuneline.models.loading import ADAPTER, BASE, load_adapter, load_model, load_tokenizer, pick_device

    heldout = ROOT / "data/processed/heldout.jsonl"
    for needed in (heldout, ROOT / BASE / "config.json", ROOT / ADAPTER):
        if not needed.exists():
            sys.exit(f"evaluate: {needed} is missing: run `make repro` first")
    keep_blocks()
    device, dtype = pick_device(), getattr(torch, options.dtype)
    tokenizer = load_tokenizer(ROOT / BASE)
    prompter = Prompter(tokenizer)
    questions = [one["messages"][:-1] for one in read_heldout(heldout)][: options.items]
    model = load_model(ROOT / BASE, dtype, device)
    bandwidth = read_rate(model)
    print(
        f"{len(questions)} questions, up to {options.max_new_tokens} new tokens, {options.dtype}, {device.type}, ",
        end="",
    )
    print(f"memory read at {bandwidth / 1e9:.1f} GB/s\n")
    print("| | one by one, s | batched, s | ratio | tokens/s | same answers | share of the bandwidth |")
    print("|---|---|---|---|---|---|---|")
    for name in ("base", "tuned"):
        if name == "tuned":
            model = load_adapter(model, ROOT / ADAPTER)
        size = sum(one.numel() * one.element_size() for one in model.parameters())
        ways = (
            Evaluate(max_new_tokens=options.max_new_tokens, batch_size=rows, dtype=options.dtype)
            for rows in (1, options.batch_size)
        )
        single, batched = (
            answer(model, tokenizer, prompter, questions, way, f"{name}, {way.batch_size} at a time") for way in ways
        )
        same = sum(one == other for one, other in zip(single.answers, batched.answers, strict=True))
        print(
            f"| {name} | {single.seconds:.1f} | {batched.seconds:.1f} | {single.seconds / batched.seconds:.1f} "
            f"| {batched.new_tokens / batched.seconds:.0f} | {same} of {len(questions)} "
            f"| {batched.passes * size / batched.seconds / bandwidth:.2f} |",
            flush=True,
        )


def answer(model: Any, tokenizer: Any, prompter: Any, questions: list[Any], params: Any, label: str) -> Way:
    """Tuneline's own answers, with a batch size of one the loop that it is measured against."""
    from tuneline.evaluate.predict import generate

    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    hook = model.get_output_embeddings().register_forward_hook(count)
    started = time.monotonic()
    answers, times = generate(model, tokenizer, prompter, questions, params, label)
    seconds = time.monotonic() - started
    hook.remove()
    said = [(one.text, one.finished) for one in answers]
    return Way(seconds, said, sum(one.tokens for one in times), passes)


def read_rate(model: Any) -> float:
    """Bytes a second of a product of the largest weight with one vector, whose time is that of reading the weight."""
    import torch

    weight = max(model.parameters(), key=lambda one: one.numel())
    vector = weight.new_ones(weight.shape[1])
    sync = torch.cuda.synchronize if weight.is_cuda else lambda: None
    best = float("inf")
    with torch.inference_mode():
        for _ in range(8):
            sync()
            started = time.perf_counter()
            torch.mv(weight, vector)
            sync()
            best = min(best, time.perf_counter() - started)
    return weight.numel() * weight.element_size() / best


if __name__ == "__main__":
    main()
