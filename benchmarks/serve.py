"""The API under many requests, good and bad: memory of the server's process, requests a second, and whether it lives on.

    python -m benchmarks.serve                      the project's own models, 500 requests
    python -m benchmarks.serve --folder elsewhere   another folder with models/base, models/adapter, models/merged

In turns a streamed answer, one at once, one whose client goes after the first words, and a request that is wrong; four
clients at a time, answers of 8 tokens. Memory that grows between the 100th request and the last is a leak. Markdown on
standard output.
"""

import argparse
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

from benchmarks.folder import ROOT, free_port

CLIENTS = 4
WARM = 100
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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=ROOT)
    options = parser.parse_args()
    if options.requests <= WARM:
        parser.error(f"--requests is {options.requests}, expected more than {WARM}")
    with serving(options.folder) as (process, address), httpx.Client(base_url=address, timeout=600) as client:
        names = [one["id"] for one in client.get("/v1/models").json()["data"]]
        memory = psutil.Process(process.pid).memory_info
        print("| | RSS, MB |\n|---|---|", flush=True)
        print(f"| before the first request | {memory().rss / 1e6:.1f} |", flush=True)
        ended, seconds = Counter[str](), 0.0
        for label, numbers in (("after 100", range(WARM)), ("at the end", range(WARM, options.requests))):
            started = time.monotonic()
            with ThreadPoolExecutor(CLIENTS) as pool:
                ended.update(pool.map(lambda number: send(client, number, names), numbers))
            seconds += time.monotonic() - started
            print(f"| {label} | {memory().rss / 1e6:.1f} |", flush=True)
        health = client.get("/health").status_code
    print(f"\n{options.requests} requests, {options.requests / seconds:.1f} a second; /health says {health}; ", end="")
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(ended.items())))


def send(client: httpx.Client, number: int, names: list[str]) -> str:
    """One request, its kind by its number; returns the kind and the status."""
    turn, kind = divmod(number, 4)
    good = {"model": names[turn % len(names)], "messages": QUESTION, "max_tokens": 8}
    if kind == 3:
        return f"wrong {client.post(CHAT, **WRONG[turn % len(WRONG)]).status_code}"
    if kind == 0:
        return f"at once {client.post(CHAT, json=good).status_code}"
    # Who goes asks for more than it will read.
    asked = {**good, "stream": True} | ({"max_tokens": 200} if kind == 2 else {})
    with client.stream("POST", CHAT, json=asked) as response:
        for _ in response.iter_lines():
            if kind == 2:
                return f"gone {response.status_code}"
    return f"streamed {response.status_code}"


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server's process in that folder, and its address, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "chat.serve", "--port", port]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TUNELINE_KEY": ""}
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                if process.poll() is not None:
                    sys.exit(f"serve: the server in {folder} ended with {process.returncode} before it answered")
                try:
                    httpx.get(f"{address}/health", timeout=60)
                    break
                except httpx.ConnectError:
                    time.sleep(0.2)
            yield process, address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
