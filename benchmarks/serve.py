"""Load test of the API with good, bad and slow requests: memory, waits, and health; and the throughput of requests at once.

    python -m benchmarks.serve                      the project's own models: 2,000 requests from 50 clients
    python -m benchmarks.serve --throughput         25 requests in flight against one after another, tokens a second
    python -m benchmarks.serve --folder elsewhere   another folder with models/base, models/adapter, models/merged

In turns an answer at once, a streamed one, one whose client disconnects after the first words, an invalid request, and one
whose client sends or reads slowly. Memory that grows between the 200th request and the last is a leak. Of the throughput
compare the generated tokens a second with those of `evaluate` on the same machine (metrics/speed/evaluate.json). Markdown on
standard output.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.harness import ROOT, argument_parser, show, table
from tuneline.runtime.machine import free_port

CLIENTS = 50
WARM_UP = 200
IN_FLIGHT = 25
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
SLOW = 0.05
"""Seconds of a slow client before each part that it sends or reads."""
"""Requests after which everything is loaded and every cache is filled."""
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
    options = parser.parse_args()
    if options.requests <= WARM_UP:
        parser.error(f"--requests is {options.requests}, expected more than {WARM_UP}")
    with (
        serving(options.folder) as (process, address),
        httpx.Client(base_url=address, timeout=600, limits=LIMITS) as client,
    ):
        if options.throughput:
            show(table(("in flight", "requests", "tokens", "s", "tokens/s"), throughput(client, options.tokens)))
        else:
            load(client, psutil.Process(process.pid), options.requests, options.clients)


def throughput(client: httpx.Client, tokens: int) -> Iterator[tuple[str, ...]]:
    """Rows of measurements with 1 and with IN_FLIGHT requests at a time, in turns."""
    name = client.get("/v1/models").json()["data"][-1]["id"]
    asked = {"model": name, "max_tokens": tokens}

    def ask(number: int) -> int:
        question = [{"role": "user", "content": f"{QUESTION[0]['content']}（{number}）"}]
        return int(client.post(CHAT, json=asked | {"messages": question}).json()["usage"]["completion_tokens"])

    ask(0)
    for _ in range(2):
        for workers, requests in ((1, 5), (IN_FLIGHT, 2 * IN_FLIGHT)):
            started = time.monotonic()
            with ThreadPoolExecutor(workers) as pool:
                generated = sum(pool.map(ask, range(requests)))
            seconds = time.monotonic() - started
            yield f"{workers}", f"{requests}", f"{generated}", f"{seconds:.1f}", f"{generated / seconds:.1f}"


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
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server's process in that folder, and its address, once it answers."""
    port = str(free_port())
    command = [sys.executable, "-m", "tuneline", "serve", "--port", port]
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
