"""A small HTTP server in the test's own process, whose answers a test decides."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple


class Asked(NamedTuple):
    method: str
    path: str
    body: Any
    headers: dict[str, str]


class Said(NamedTuple):
    status: int
    body: Any
    """JSON, or text or bytes as they are."""
    headers: Mapping[str, str] = MappingProxyType({})


Answer = Callable[[Asked], Said | None]
"""None closes the connection without an answer."""


@contextmanager
def fake_server(answer: Answer) -> Iterator[str]:
    """Yield the server's URL. `answer` is called in several threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            said = answer(Asked(self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            if said is None:
                self.close_connection = True
                return
            content = said.body if isinstance(said.body, bytes) else None
            if content is None:
                content = (said.body if isinstance(said.body, str) else json.dumps(said.body)).encode()
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(content)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_one  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str, finish: str = "stop", tokens: int | None = None, **message: Any) -> Said:
    """A chat completion as OpenAI's API has it."""
    counted = len(text) if tokens is None else tokens
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish}
    return Said(200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": counted}})


def models(*names: str, owner: str = "somebody") -> Said:
    listed = [{"id": name, "object": "model", "owned_by": owner} for name in names]
    return Said(200, {"object": "list", "data": listed})


NOTHING = Said(404, {"detail": "Not Found"})
