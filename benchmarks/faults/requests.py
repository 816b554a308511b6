"""Malformed HTTP and API requests to `tuneline serve` on the finished project, each over a connection of its own."""

import gzip
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from benchmarks.faults.cases import Case, Place
from benchmarks.faults.forked import ENVIRONMENT
from benchmarks.faults.outcomes import STACK, Outcome, Result
from benchmarks.harness import environment
from tuneline.runtime.machine import free_port

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "base", "max_tokens": 3, "messages": [{"role": "user", "content": "感冒怎么办"}]}
ANSWER_SECONDS = 60.0
SLOW_START = 120.0


class Exchange(NamedTuple):
    """Bytes that are sent, and the statuses that are right; 0 for a connection closed without a word."""

    sent: bytes
    statuses: tuple[int, ...]
    answers: int = 1
    """At most so many on the connection."""


def raw(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


def post(body: bytes, headers: str = "Content-Type: application/json", path: str = CHAT) -> bytes:
    return raw(
        f"POST {path} HTTP/1.1\nHost: localhost\nConnection: close\n{headers}\nContent-Length: {len(body)}", body
    )


def asked(**changes: Any) -> bytes:
    return post(json.dumps(ASKED | changes).encode())


def turn(**fields: Any) -> bytes:
    """The assistant's reply given back, with further fields."""
    messages = [
        *ASKED["messages"],
        {"role": "assistant", "content": "多休息"} | fields,
        {"role": "user", "content": "谢谢"},
    ]
    return asked(messages=messages)


def several(count: int) -> str:
    """So many headers."""
    return "".join(f"\nX-{number}: a" for number in range(count))


BODY = json.dumps(ASKED).encode()
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
HOST = f"POST {CHAT} HTTP/1.1\nHost: localhost\nContent-Type: application/json"
CODED = f"{HOST}\nTransfer-Encoding: chunked"
HEALTH = "GET /health HTTP/1.1\nHost: localhost\nConnection: close"
SECOND = raw(HEALTH)
IMAGE = [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]
RECURSIVE = [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}]
PATTERN = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"pattern": "(x+x+)+y"}}}
ENDLESS = "9" * 5_000
RETURNED: dict[str, Any] = {
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": None,
}
"""What the `openai` client has in a reply beside its text."""
BAD = (400,)
HTTP = {
    "length_and_chunks": Exchange(raw(f"{HOST}\nContent-Length: 4\nTransfer-Encoding: chunked", CHUNKED) + SECOND, BAD),
    "chunks_and_length": Exchange(raw(f"{CODED}\nContent-Length: {len(CHUNKED)}", CHUNKED) + SECOND, BAD),
    "two_lengths": Exchange(raw(f"{HOST}\nContent-Length: {len(BODY)}\nContent-Length: 3", BODY) + SECOND, BAD),
    "two_lengths_in_one": Exchange(raw(f"{HOST}\nContent-Length: {len(BODY)}, 3", BODY), BAD),
    "negative_length": Exchange(raw(f"{HOST}\nContent-Length: -1", BODY), BAD),
    "length_with_a_sign": Exchange(raw(f"{HOST}\nContent-Length: +{len(BODY)}", BODY), BAD),
    "length_that_is_no_number": Exchange(raw(f"{HOST}\nContent-Length: many", BODY), BAD),
    "length_of_a_terabyte": Exchange(raw(f"{HOST}\nContent-Length: {10**12}", BODY), (400, 413)),
    "unknown_coding": Exchange(raw(f"{HOST}\nTransfer-Encoding: gzip, chunked", CHUNKED), (400, 501)),
    "chunked_twice": Exchange(raw(f"{HOST}\nTransfer-Encoding: chunked, chunked", CHUNKED), (400, 501)),
    "hidden_coding": Exchange(raw(f"{HOST}\nTransfer-Encoding : chunked", CHUNKED), BAD),
    "size_of_a_chunk_that_is_no_number": Exchange(raw(CODED, b"zz\r\nabc\r\n0\r\n\r\n"), BAD),
    "size_of_a_chunk_beyond_64_bits": Exchange(raw(CODED, b"f" * 40 + b"\r\n"), (400, 413)),
    "header_of_70_kb": Exchange(raw(f"GET /health HTTP/1.1\nHost: localhost\nX-A: {'a' * 70_000}"), (400, 431)),
    "ten_thousand_headers": Exchange(raw(HEALTH + several(10_000)), (400, 431)),
    "two_hundred_headers": Exchange(raw(HEALTH + several(200)), (200, 400, 431)),
    "url_of_70_kb": Exchange(raw(f"GET /{'a' * 70_000} HTTP/1.1\nHost: localhost"), (400, 404, 414, 431)),
    "no_host": Exchange(raw("GET /health HTTP/1.1"), BAD),
    "two_hosts": Exchange(raw("GET /health HTTP/1.1\nHost: localhost\nHost: evil"), (400, 421)),
    "host_of_another": Exchange(raw("GET /health HTTP/1.1\nHost: evil.example\nConnection: close"), (400, 403, 421)),
    "version_9": Exchange(raw("GET /health HTTP/9.9\nHost: localhost\nConnection: close"), (200, 400, 505)),
    "no_version": Exchange(b"GET /health\r\n\r\n", (400, 0)),
    "no_http": Exchange(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n", (400, 0)),
    "folded_header": Exchange(raw("GET /health HTTP/1.1\nHost: localhost\nConnection: close\nX-A: a\n b"), (200, 400)),
    "nul_in_a_header": Exchange(raw("GET /health HTTP/1.1\nHost: localhost\nX-A: a\0b"), BAD),
    "space_in_a_name": Exchange(raw("GET /health HTTP/1.1\nHost: localhost\nX A: b"), BAD),
    "method_of_nobody": Exchange(raw(f"EVIL {CHAT} HTTP/1.1\nHost: localhost\nConnection: close"), (400, 405, 501)),
    "get_of_a_post": Exchange(raw(f"GET {CHAT} HTTP/1.1\nHost: localhost\nConnection: close"), (405,)),
    "path_upwards": Exchange(raw("GET /v1/../../etc/passwd HTTP/1.1\nHost: localhost\nConnection: close"), (400, 404)),
    "connect": Exchange(raw("CONNECT evil:443 HTTP/1.1\nHost: evil:443\nConnection: close"), (400, 403, 404, 405, 421)),
    "half_a_request": Exchange(f"POST {CHAT} HT".encode(), (0, 400, 408)),
    "nothing": Exchange(b"", (0, 408)),
}  # fmt: skip
API = {
    "no_json": Exchange(post(b"{"), BAD),
    "a_list": Exchange(post(b"[]"), BAD),
    "nothing_in_it": Exchange(post(b""), BAD),
    "no_utf_8": Exchange(post(b'{"model": "\xff\xfe"}'), BAD),
    "nested_without_end": Exchange(post(b'{"model":' + b"[" * 100_000), BAD),
    "nested_with_an_end": Exchange(post(b'{"model":' + b"[" * 5_000 + b"]" * 5_000 + b"}"), BAD),
    "number_of_5000_digits": Exchange(post(BODY[:-1] + f', "seed": {ENDLESS}}}'.encode()), BAD),
    "not_a_number": Exchange(post(BODY[:-1] + b', "temperature": NaN}'), BAD),
    "two_of_one_key": Exchange(post(b'{"model": "nobody", ' + BODY[1:]), (200, 400)),
    "lone_surrogate": Exchange(asked(messages=[{"role": "user", "content": "\ud800"}]), (200, 400)),
    "nul": Exchange(asked(messages=[{"role": "user", "content": "\0"}]), (200, 400)),
    "other_type": Exchange(post(BODY, "Content-Type: text/plain"), (400, 415)),
    "packed": Exchange(post(gzip.compress(BODY), "Content-Type: application/json\nContent-Encoding: gzip"), (400, 415)),
    "said_to_be_packed": Exchange(post(BODY, "Content-Type: application/json\nContent-Encoding: gzip"), (200, 400, 415)),
    "ten_megabytes": Exchange(post(b" " * 10_000_000), (0, 400, 413)),
    "long_question": Exchange(asked(messages=[{"role": "user", "content": "好" * 50_000}]), (400, 413)),
    "model_of_nobody": Exchange(asked(model="nobody"), (404,)),
    "model_upwards": Exchange(asked(model="../base"), (400, 404)),
    "model_is_a_number": Exchange(asked(model=7), BAD),
    "no_messages": Exchange(asked(messages=[]), BAD),
    "messages_are_text": Exchange(asked(messages="?"), BAD),
    "role_of_nobody": Exchange(asked(messages=[{"role": "evil", "content": "a"}]), BAD),
    "content_is_a_number": Exchange(asked(messages=[{"role": "user", "content": 7}]), BAD),
    "content_is_an_image": Exchange(asked(messages=[{"role": "user", "content": IMAGE}]), BAD),
    "last_is_the_assistants": Exchange(asked(messages=[{"role": "assistant", "content": "a"}]), (200, 400)),
    "temperature_of_text": Exchange(asked(temperature="hot"), BAD),
    "temperature_below_0": Exchange(asked(temperature=-1), BAD),
    "temperature_true": Exchange(asked(temperature=True), BAD),
    "top_p_of_2": Exchange(asked(top_p=2), BAD),
    "no_tokens": Exchange(asked(max_tokens=0), BAD),
    "tokens_below_0": Exchange(asked(max_tokens=-5), BAD),
    "tokens_beyond_all": Exchange(asked(max_tokens=2**70), (200, 400)),
    "tokens_of_text": Exchange(asked(max_tokens="5"), BAD),
    "a_thousand_answers": Exchange(asked(n=1000), BAD),
    "stop_of_numbers": Exchange(asked(stop=[1]), BAD),
    "a_thousand_stops": Exchange(asked(stop=["a"] * 1000), BAD),
    "stream_of_text": Exchange(asked(stream="yes"), BAD),
    "tools_of_nothing": Exchange(asked(tools=[{}]), BAD),
    "tool_that_nests": Exchange(asked(tools=RECURSIVE), (200, 400)),
    "answer_by_an_evil_pattern": Exchange(asked(response_format=PATTERN), (200, 400)),
    "unknown_field_that_changes_nothing": Exchange(asked(metadata={"a": "b"}, user="u", store=False), (200,)),
    "unknown_field": Exchange(asked(evil=1), (200, 400)),
    "as_the_client_returns_it": Exchange(turn(**RETURNED), (200,)),
    "with_its_thoughts": Exchange(turn(reasoning_content=None), (200,)),
    "with_a_refusal": Exchange(turn(refusal="no"), (200, 400)),
    "calls_without_names": Exchange(turn(tool_calls=[{"id": "1"}]), BAD),
    "a_good_one": Exchange(asked(), (200,)),
}  # fmt: skip


def cases() -> Iterator[Case]:
    yield Case("requests", "all", attacked)


def attacked(place: Place) -> list[Result]:
    with served(place) as (process, port, log):
        results = [exchanged(name, one, port) for name, one in (HTTP | API).items()]
        last = httpx.post(f"http://127.0.0.1:{port}{CHAT}", json=ASKED, timeout=ANSWER_SECONDS)
        healthy = process.poll() is None and last.status_code == 200
    said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if STACK.search(said):
        results.append(Result("log", Outcome.TRACEBACK, said[-600:]))
    return [*results, Result("healthy_at_the_end", Outcome.RIGHT if healthy else Outcome.SILENT, str(last.status_code))]


@contextmanager
def served(place: Place) -> Iterator[tuple[subprocess.Popen[bytes], int, Any]]:
    project, port = place.copy(), free_port()
    log = place.folder / "server.log"
    command = [sys.executable, "-m", "tuneline", "serve", "--port", str(port)]
    env = environment(**ENVIRONMENT) | {"TUNELINE_SCRATCH": str(place.folder / "scratch")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=project, stdout=output, stderr=output, env=env)
    deadline = time.monotonic() + SLOW_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.2)
    try:
        yield process, port, log
    finally:
        process.terminate()
        process.wait(timeout=30)


def exchanged(name: str, one: Exchange, port: int) -> Result:
    """Right for the answer of a good request, one sentence for OpenAI's form of an error."""
    try:
        reply = _sent(one.sent, port, 0 not in one.statuses)
    except TimeoutError:
        return Result(name, Outcome.HANG, f"no answer within {ANSWER_SECONDS:.0f} s")
    statuses = [int(word) for word in re.findall(rb"HTTP/1\.1 (\d{3}) ", reply)]
    status = statuses[0] if statuses else 0
    if len(statuses) > one.answers:
        return Result(name, Outcome.SILENT, f"{len(statuses)} answers on one connection: {statuses}")
    if status >= 500 and status not in one.statuses:
        return Result(name, Outcome.TRACEBACK, f"status {status}: {reply[-200:]!r}")
    if status not in one.statuses:
        return Result(name, Outcome.SILENT, f"status {status}, expected {one.statuses}: {reply[-200:]!r}")
    return Result(name, Outcome.RIGHT if status == 200 else Outcome.SENTENCE, str(status))


def _sent(content: bytes, port: int, whole: bool) -> bytes:
    """All that the server says until it closes, or has said one whole answer and nothing more for a second."""
    reply = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        try:
            connection.sendall(content)
            if not whole:
                # Of a whole request it would say that nobody waits for the reply.
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                reply += part
                connection.settimeout(ANSWER_SECONDS if b"HTTP/1.1" not in reply else 1.5)
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError) and b"HTTP/1.1" not in reply:
                raise
    return reply
