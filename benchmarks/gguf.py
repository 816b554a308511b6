"""GGUF files in llama.cpp's real server, against the merged model that they were made of: prompts, answers, NLL, scores.

    python -m benchmarks.gguf --server llama.cpp/build/bin/llama-server --gguf f16.gguf --gguf q4_k_m.gguf
    python -m benchmarks.gguf --folder elsewhere …     another folder with models/merged and data/processed/heldout.jsonl

Each held-out item is asked over /v1/chat/completions, at temperature 0, for at most --tokens tokens; prompt ids are those of
/apply-template and /tokenize. Ours are computed in float32, from the merged folder. The NLL of the references needs llama.cpp's
Python binding (llama-cpp-python, with LLAMA_CPP_LIB_PATH at the folder of libllama.so), and is left out without it. Markdown on
standard output; exit status 1 when an f16 or bf16 file has fewer than --least equal answers, or its NLL is off by 0.01.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, argument_parser, call_in_child, show, table
from tuneline.endpoint.client import CHAT, Endpoint
from tuneline.endpoint.transport import UnreachableError
from tuneline.runtime.machine import free_port

Item = dict[str, Any]
"""Keys: messages, references, task, prompt (ids), reference (ids that carry loss), answer (ids), text, nll (sum)."""
LARGEST_NLL = 0.01
"""Nats a token by which a file of 16 bits may be off."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, action="append", required=True)
    parser.add_argument("--folder", type=Path, default=ROOT)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--least", type=int, default=48)
    options = parser.parse_args()
    items = call_in_child(ours, str(options.folder.resolve()), options.tokens)
    tokens = sum(len(item["reference"]) for item in items)
    nll = sum(item["nll"] for item in items) / tokens
    failed = []

    def rows() -> Iterator[tuple[str, ...]]:
        accuracy, rouge = scores(items, [item["text"] for item in items])
        yield "ours, float32", "", "", "", f"{nll:.4f}", accuracy, rouge
        for path in options.gguf:
            prompts, answers = ask(options.server, path, items, options.tokens, options.threads)
            equal = sum(answer["ids"] == item["answer"] for answer, item in zip(answers, items, strict=True))
            same = sum(ids == item["prompt"] for ids, item in zip(prompts, items, strict=True))
            theirs = (
                call_in_child(reference_nll, str(path.resolve()), items, options.threads)
                if find_spec("llama_cpp")
                else None
            )
            off = None if theirs is None else theirs / tokens - nll
            accuracy, rouge = scores(items, [answer["text"] for answer in answers])
            size = f"{path.stat().st_size / 1e6:.0f} MB"
            said = "not measured" if off is None else f"{nll + off:.4f} ({off:+.4f})"
            wrong = equal < options.least or abs(off or 0) > LARGEST_NLL
            if "f16" in path.name and wrong:
                failed.append(path.name)
            yield path.name, size, f"{same} of {len(items)}", f"{equal} of {len(items)}", said, accuracy, rouge

    head = (
        "file",
        "size",
        "prompt ids equal",
        f"answers equal, {options.tokens} tokens",
        "NLL of references",
        "labels",
        "ROUGE-L",
    )
    show(table(head, rows()))
    if failed:
        sys.exit(
            f"{', '.join(failed)}: fewer than {options.least} equal answers, or its NLL is off by over {LARGEST_NLL}"
        )


def ours(folder: str, limit: int) -> list[Item]:
    """The held-out items with what the merged model makes of them, in float32."""
    import torch

    from tuneline.formats.records import read_heldout
    from tuneline.models.chat_format import as_list, load_prompter
    from tuneline.models.likelihood import answer_nll
    from tuneline.models.loading import load_merged, load_tokenizer

    records = read_heldout(Path(folder, "data/processed/heldout.jsonl"))
    merged = Path(folder, "models/merged")
    model, tokenizer = load_merged(merged, torch.float32), load_tokenizer(merged)
    prompter = load_prompter(tokenizer)
    stops = sorted({*prompter.stop_ids, *as_list(model.generation_config.eos_token_id)})
    items = []
    for record in records:
        prompt = torch.tensor([prompter.generation_prompt(record["messages"][:-1])])
        said = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=limit, do_sample=False,
            eos_token_id=stops, pad_token_id=tokenizer.pad_token_id or 0,
        )  # fmt: skip
        answer = [one for one in said[0, prompt.shape[1] :].tolist() if one not in stops]
        row = prompter.training_row(record["messages"], "last_answer")
        references = record.get("references") or [record["messages"][-1]["content"]]
        items.append(
            {
                "messages": record["messages"][:-1], "references": references, "task": record["task"],
                "prompt": prompt[0].tolist(), "row": row.input_ids, "reference": [one for one in row.labels if one >= 0],
                "first": next(place for place, one in enumerate(row.labels) if one >= 0), "answer": answer,
                "text": tokenizer.decode(answer), "nll": float(answer_nll(model, row).double().sum()),
            }
        )  # fmt: skip
    return items


def reference_nll(path: str, items: list[Item], threads: int) -> float:
    """Sum of -log p of the references' tokens, in nats, by llama.cpp's library."""
    import numpy as np
    from llama_cpp import Llama  # type: ignore[import-not-found]

    longest = max(len(item["row"]) for item in items)
    model = Llama(
        path, n_ctx=longest, n_batch=longest, n_ubatch=longest, n_threads=threads, logits_all=True, verbose=False
    )
    total = 0.0
    for item in items:
        model.reset()
        model.eval(item["row"])
        logits = np.asarray(model.scores[item["first"] - 1 : len(item["row"]) - 1], np.float64)
        targets = item["row"][item["first"] :]
        highest = logits.max(1, keepdims=True)
        whole = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
        total += float((whole - logits[np.arange(len(targets)), targets]).sum())
    return total


def ask(server: Path, gguf: Path, items: list[Item], limit: int, threads: int) -> tuple[list[list[int]], list[Item]]:
    """(prompt ids, answers with `ids` and `text`) of llama.cpp's server."""
    prompts, answers = [], []
    with serving(server, gguf, threads) as endpoint:
        for number, item in enumerate(items):
            prompt = endpoint.prompt_ids(item["messages"])
            if prompt is None:
                sys.exit(f"{server} tells no prompt ids of item {number}: expected llama.cpp's llama-server")
            prompts.append(prompt)
            body = {"messages": item["messages"], "max_tokens": limit, "temperature": 0, "logprobs": True}
            said = endpoint.transport.post(CHAT, body | {"cache_prompt": False})
            choice = said["choices"][0]
            if said["usage"]["prompt_tokens"] != len(prompts[-1]):
                sys.exit(
                    f"{gguf}: item {number} was asked with {said['usage']['prompt_tokens']} tokens, expected {len(prompts[-1])}"
                )
            ids = [one["id"] for one in (choice.get("logprobs") or {"content": []})["content"]]
            # The token that ended it is among them.
            ends = choice["finish_reason"] == "stop"
            answers.append({"ids": ids[:-1] if ends and ids else ids, "text": choice["message"]["content"]})
    return prompts, answers


@contextmanager
def serving(server: Path, gguf: Path, threads: int) -> Iterator[Endpoint]:
    """llama.cpp's server on a free port of this machine, one slot, until the block is left."""
    port = free_port()
    command = [
        server,
        "-m",
        gguf,
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "-t",
        threads,
        "-np",
        1,
        "-c",
        2048,
        "--jinja",
    ]
    with (
        subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        Endpoint(f"http://127.0.0.1:{port}", gguf.name) as endpoint,
    ):
        try:
            for _ in range(600):
                if process.poll() is not None:
                    sys.exit(f"{server} ended with {process.returncode} on {gguf}")
                try:
                    endpoint.transport.ask("GET", "/health", None, retries=0)
                    break
                except UnreachableError:
                    time.sleep(0.2)
            yield endpoint
        finally:
            process.terminate()


def scores(items: list[Item], answers: list[str]) -> tuple[str, str]:
    """(labels that are right, mean ROUGE-L of the other answers)."""
    from tuneline.scoring.labels import predicted_and_actual
    from tuneline.scoring.rouge import rouge

    labels, written = [], []
    for item, answer in zip(items, answers, strict=True):
        if item["task"] == "label":
            predicted, actual = predicted_and_actual(answer, item["references"])
            labels.append(predicted == actual)
        else:
            written.append(rouge(answer, item["references"])["rouge_l"])
    mean = f"{sum(written) / len(written):.2f}" if written else "none"
    return f"{sum(labels)} of {len(labels)}", mean


if __name__ == "__main__":
    main()
