"""Load test of the API with good, bad and slow requests: memory, waits, and health; and the throughput of requests at once.

    python -m benchmarks.serve                      the project's own models: 2,000 requests from 50 clients
    python -m benchmarks.serve --throughput         25 requests in flight, one after another, and evaluation's own batches
    python -m benchmarks.serve --folder elsewhere   another folder with models/base, models/adapter, models/merged

In turns an answer at once, a streamed one, one whose client disconnects after the first words, an invalid request, and one
whose client sends or reads slowly. Memory that grows between the 200th request and the last is a leak. Throughput is of the
held-out questions and in turns, by the server's CPU time (this process's for batches), too, since other work on the machine
changes the wall-clock time. Markdown on standard output.
"""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
import psutil

from benchmarks.harness import ROOT, argument_parser, show, table
from tuneline.runtime.machine import free_port

CLIENTS = 50
WARM_UP = 200
"""Requests after which everything is loaded and every cache is filled."""
IN_FLIGHT = 25
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
SLOW = 0.05
"""Seconds of a slow client before each part that it sends or reads."""
CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "感冒一般几天能好？"}]
WRONG: tuple[dict[str, Any], ...] = (
    {"content": b"{", "headers": {"Content-Type": "application/json"}},
    {"json": {"model": "../base", "messages": QUESTION}},
    {"json": {"model": "base", "messages": "?"}},
    {"json": {"model": "base", "messages": QUESTION, "tools": [{}]}},
    {"json": {"model": "base", "messages": [{"role": "user", "content": "好" * 40_000}]}},
    {"content": b" " * 2_000_000, "headers": {"Content-Type": "application/json"}},
    {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--folder", type=Path, default=ROOT)
    parser.add_argument("--throughput", action="store_true")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, with --throughput")
    parser.add_argument("--rounds", type=int, default=3, help="with --throughput")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="with --throughput")
    options = parser.parse_args()
    if options.requests <= WARM_UP:
        parser.error(f"--requests is {options.requests}, expected more than {WARM_UP}")
    with (
        serving(options.folder, options.dtype) as (process, address),
        httpx.Client(base_url=address, timeout=600, limits=LIMITS) as client,
    ):
        if options.throughput:
            throughput(client, psutil.Process(process.pid), options)
        else:
            load(client, psutil.Process(process.pid), options.requests, options.clients)


class Speed(NamedTuple):
    tokens: int
    per_second: float
    per_cpu_second: float
    """Of all cores together."""


def throughput(client: httpx.Client, server: psutil.Process, options: Namespace) -> None:
    """Print tokens a second of the server with 1 and IN_FLIGHT requests at a time, and of evaluation's batches, in turns."""
    from tuneline.formats.records import read_heldout

    records = read_heldout(options.folder / "data/processed/heldout.jsonl")
    talks = [record["messages"][:-1] for record in records][: 2 * IN_FLIGHT]
    name = "adapter" if (options.folder / "models/adapter").is_dir() else "base"

    def ask(messages: Any) -> int:
        body = {"model": name, "max_tokens": options.tokens, "messages": messages}
        return int(client.post(CHAT, json=body).json()["usage"]["completion_tokens"])

    def asked(workers: int, some: Sequence[Any]) -> int:
        with ThreadPoolExecutor(workers) as pool:
            return sum(pool.map(ask, some))

    batches = batched(options, name, talks)
    ways: dict[str, tuple[Callable[[], int], psutil.Process]] = {
        "1 in flight": (lambda: asked(1, talks[:5]), server),
        f"{IN_FLIGHT} in flight": (lambda: asked(IN_FLIGHT, talks), server),
        f"batches of {IN_FLIGHT}": (batches, psutil.Process()),
    }
    ask(talks[0])
    found: dict[str, list[Speed]] = {}
    for _ in range(options.rounds):
        for way, (run, process) in ways.items():
            found.setdefault(way, []).append(speed(run, process))
    rows = ((way, *(f"{median(values):.1f}" for values in zip(*speeds, strict=True))) for way, speeds in found.items())
    show(table(("", "tokens", "tokens/s", "tokens/CPU s"), rows))
    _, many, batch = found.values()
    wall = median(one.per_second / other.per_second for one, other in zip(many, batch, strict=True))
    cpu = median(one.per_cpu_second / other.per_cpu_second for one, other in zip(many, batch, strict=True))
    print(f"\n{IN_FLIGHT} in flight against batches, medians of {options.rounds}: {wall:.2f}, by CPU time {cpu:.2f}")


def speed(run: Callable[[], int], process: psutil.Process) -> Speed:
    """Of `run`, which returns tokens that the process has generated."""
    began, before = time.monotonic(), process.cpu_times()
    tokens, seconds, after = run(), time.monotonic() - began, process.cpu_times()
    return Speed(tokens, tokens / seconds, tokens / (after.user + after.system - before.user - before.system))


def batched(options: Namespace, name: str, talks: Sequence[Any]) -> Callable[[], int]:
    """Generation as `evaluate` has it, on a model of this process."""
    from tuneline.models.calls.answers import AnswerReader
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.cpu_tuning import retain_freed_blocks
    from tuneline.models.decoding.generate import greedy
    from tuneline.models.loading import load_adapter, load_model, load_tokenizer, pick_device, pick_dtype

    base, device = options.folder / "models/base", pick_device()
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    retain_freed_blocks()
    network = load_model(base, pick_dtype(options.dtype, device, "--dtype", config), device)
    if name == "adapter":
        network = load_adapter(network, options.folder / "models/adapter")
    tokenizer = load_tokenizer(base)
    prompter = load_prompter(tokenizer)
    reader = AnswerReader(tokenizer, prompter)
    prompts = [prompter.generation_prompt(messages) for messages in talks]

    def run() -> int:
        answers, _ = greedy(
            network, prompts, stop_ids=reader.stops_of(network), pad_id=tokenizer.pad_token_id or 0,
            max_new_tokens=options.tokens, batch_size=IN_FLIGHT, decode=reader.decode, label="batches",
        )  # fmt: skip
        return sum(answer.tokens for answer in answers)

    return run


def timed_requests(client: httpx.Client, waits: list[float]) -> Callable[[int], str]:
    """`send` for all models of the server, by number; how long each took, in seconds, is added to `waits`."""
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]

    def timed(number: int) -> str:
        began = time.monotonic()
        outcome = send(client, number, names)
        waits.append(time.monotonic() - began)
        return outcome

    return timed


def load(client: httpx.Client, server: psutil.Process, requests: int, clients: int) -> None:
    """Print memory before, after WARM_UP and at the end, the longest wait, and what came of the requests."""
    outcomes, waits, start = Counter[str](), list[float](), time.monotonic()
    timed = timed_requests(client, waits)

    def rows() -> Iterator[tuple[str, str]]:
        yield "before the first request", f"{server.memory_info().rss / 1e6:.1f}"
        for label, numbers in ((f"after {WARM_UP}", range(WARM_UP)), ("at the end", range(WARM_UP, requests))):
            with ThreadPoolExecutor(clients) as pool:
                outcomes.update(pool.map(timed, numbers))
            yield label, f"{server.memory_info().rss / 1e6:.1f}"

    show(table(("", "RSS, MB"), rows()))
    rate = requests / (time.monotonic() - start)
    health = client.get("/health").status_code
    counts = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items()))
    print(
        f"\n{requests} requests, {rate:.1f} a second, the longest took {max(waits):.1f} s; /health says {health}; {counts}"
    )


def send(client: httpx.Client, number: int, names: list[str]) -> str:
    """One request, its kind by its number; returns kind and status."""
    turn, kind = divmod(number, 5)
    good = {"model": names[turn % len(names)], "messages": QUESTION, "max_tokens": 8}
    if kind == 3:
        return f"wrong {client.post(CHAT, **WRONG[turn % len(WRONG)]).status_code}"
    if kind == 0:
        return f"at once {client.post(CHAT, json=good).status_code}"
    if kind == 4 and turn % 2:
        answer = client.post(
            CHAT, content=slowly(json.dumps(good).encode()), headers={"Content-Type": "application/json"}
        )
        return f"sent slowly {answer.status_code}"
    # Who disconnects asks for more than it will read.
    streamed = good | {"stream": True} | ({"max_tokens": 200} if kind == 2 else {})
    with client.stream("POST", CHAT, json=streamed) as response:
        for _ in response.iter_lines():
            if kind == 2:
                return f"gone {response.status_code}"
            if kind == 4:
                time.sleep(SLOW)
    return f"{'read slowly' if kind == 4 else 'streamed'} {response.status_code}"


def slowly(body: bytes) -> Iterator[bytes]:
    """A body in eight parts with pauses."""
    size = -(-len(body) // 8)
    for start in range(0, len(body), size):
        time.sleep(SLOW)
        yield body[start : start + size]


@contextmanager
def serving(folder: Path, dtype: str = "auto") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server's process in that folder, and its address, once it answers."""
    port = str(free_port())
    command = [sys.executable, "-m", "tuneline", "serve", "--port", port, "--dtype", dtype]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TUNELINE_KEY": ""}
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while not is_up(address):
                if process.poll() is not None:
                    sys.exit(f"serve: the server in {folder} ended with {process.returncode} before it answered")
                time.sleep(0.2)
            yield process, address
        finally:
            process.terminate()


def is_up(address: str) -> bool:
    try:
        httpx.get(f"{address}/health", timeout=60)
    except httpx.ConnectError:
        return False
    return True


if __name__ == "__main__":
    main()
