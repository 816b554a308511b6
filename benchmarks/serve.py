"""Load test of the API with good and bad requests: the server's memory, requests a second, and health at the end.

    python -m benchmarks.serve                      the project's own models, 500 requests
    python -m benchmarks.serve --folder elsewhere   another folder with models/base, models/adapter, models/merged

In turns an answer at once, a streamed one, one whose client disconnects after the first words, and an invalid request;
four clients at a time, answers of 8 tokens. Memory that grows between the 100th request and the last is a leak. Markdown on
standard output.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.harness import ROOT, argument_parser, show, table
from tuneline.runtime.machine import free_port

CLIENTS = 4
WARM_UP = 100
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
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=ROOT)
    options = parser.parse_args()
    if options.requests <= WARM_UP:
        parser.error(f"--requests is {options.requests}, expected more than {WARM_UP}")
    with serving(options.folder) as (process, address), httpx.Client(base_url=address, timeout=600) as client:
        outcomes, start = Counter[str](), time.monotonic()

        def rows() -> Iterator[tuple[str, str]]:
            names = [model["id"] for model in client.get("/v1/models").json()["data"]]
            resident = psutil.Process(process.pid).memory_info
            yield "before the first request", f"{resident().rss / 1e6:.1f}"
            for label, numbers in (("after 100", range(WARM_UP)), ("at the end", range(WARM_UP, options.requests))):
                with ThreadPoolExecutor(CLIENTS) as pool:
                    outcomes.update(pool.map(lambda number: send(client, number, names), numbers))
                yield label, f"{resident().rss / 1e6:.1f}"

        show(table(("", "RSS, MB"), rows()))
        rate = options.requests / (time.monotonic() - start)
        health = client.get("/health").status_code
    counts = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items()))
    print(f"\n{options.requests} requests, {rate:.1f} a second; /health says {health}; {counts}")


def send(client: httpx.Client, number: int, names: list[str]) -> str:
    """One request, its kind by its number; returns kind and status."""
    turn, kind = divmod(number, 4)
    good = {"model": names[turn % len(names)], "messages": QUESTION, "max_tokens": 8}
    if kind == 3:
        return f"wrong {client.post(CHAT, **WRONG[turn % len(WRONG)]).status_code}"
    if kind == 0:
        return f"at once {client.post(CHAT, json=good).status_code}"
    # Who disconnects asks for more than it will read.
    streamed = good | {"stream": True} | ({"max_tokens": 200} if kind == 2 else {})
    with client.stream("POST", CHAT, json=streamed) as response:
        for _ in response.iter_lines():
            if kind == 2:
                return f"gone {response.status_code}"
    return f"streamed {response.status_code}"


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
