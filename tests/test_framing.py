"""What comes over a connection beside requests that a library makes: each is answered by one status, or closed, in time."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest

import chat.api
import chat.connections
from chat.openai.schema import parse_request
from tests.helpers.serving import serving

GET = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
NEXT = GET + "Connection: close\r\n\r\n"
"""What a proxy would take for the next client's request."""
REPLY = {
    "role": "assistant",
    "content": "休息",
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
}


@pytest.fixture(scope="module")
def port():
    # No request here gets as far as a model.
    with serving(SimpleNamespace(models=SimpleNamespace(names=["base"]))) as address:
        yield int(address.rpartition(":")[2])


def exchange(port: int, sent: bytes | str, *, half_closed: bool = False) -> str:
    """All that the server answers until it closes, or has said nothing for two seconds."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(sent.encode() if isinstance(sent, str) else sent)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        try:
            while block := connection.recv(65536):
                answer += block
        except (TimeoutError, ConnectionResetError):
            pass
    return answer.decode()


def statuses(answer: str) -> list[int]:
    return [int(line.split()[1]) for line in answer.split("\r\n") if line.startswith("HTTP/1.1 ")] or [
        int(part.split()[0]) for part in answer.split("HTTP/1.1 ")[1:]
    ]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}", [400]),
        (f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{NEXT}", [400]),
        (f"{POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}{NEXT}", [400]),
        (f"{POST}Content-Length: 2, 3\r\n\r\n{{}}{NEXT}", [400]),
        (f"{POST}Content-Length: -1\r\n\r\n{NEXT}", [400]),
        (f"{POST}Content-Length: +2\r\n\r\n{{}}{NEXT}", [400]),
        (f"{POST}Content-Length: 0x2\r\n\r\n{{}}{NEXT}", [400]),
        (f"{POST}Content-Length: {'9' * 5000}\r\n\r\n{NEXT}", [400]),
        (f"{POST}Content-Length : 2\r\n\r\n{{}}{NEXT}", [400]),
        (f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{NEXT}", [501, 400]),
        (f"{POST}Transfer-Encoding: gzip\r\n\r\n{NEXT}", [501, 400]),
        (f"{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{NEXT}", [501, 400]),
        (f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", [400]),
        (f"{POST}Transfer-Encoding: chunked\r\n\r\n-2\r\n{{}}\r\n0\r\n\r\n", [400]),
        (f"{POST}Transfer-Encoding: chunked\r\n\r\n{'f' * 30}\r\n{{}}\r\n0\r\n\r\n", [400]),
        ("GET /health\r\n\r\n", [400]),
        ("GET /health HTTP/0.9\r\n\r\n", [505]),
        ("GET /health HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n", [505]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
        ("GET /health HTTP/1.1\r\n\r\n", [400]),
        (f"{GET}Host: other\r\n\r\n", [400]),
        (f"{GET}a: b\r\n c\r\n: d\r\n\r\n", [400]),
        (f"{GET}bad header\r\n\r\n", [400]),
        (f"{GET}a: {'b' * 70_000}\r\n\r\n", [400, 431]),
        (GET + "a: b\r\n" * 101 + "\r\n", [431]),
        (GET + "a: b\r\n" * 10_000 + "\r\n", [400, 431]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 400, [400]),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", [403]),
        ("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", [403]),
        (f"{GET}Origin: http://evil.example\r\n\r\n", [403]),
        ("OPTIONS /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null\r\nAccess-Control-Request-Method: GET\r\n\r\n", [403]),
        (f"{POST}Content-Length: 2000000\r\n\r\n", [413]),
    ],
)  # fmt: skip
def test_a_request_that_is_none_gets_one_status_and_no_second_answer(port, sent, expected):
    found = statuses(exchange(port, sent))
    assert len(found) == 1 and found[0] in expected, found


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (f"{GET}\r\n{NEXT}", [200, 200]),
        (f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n{NEXT}", [400, 200]),
        (f"{POST}Content-Length: 2\r\nContent-Length: 2\r\n\r\n[]{NEXT}", [400, 200]),
        (f"{POST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n[]{NEXT}", [100, 400, 200]),
        ("GET http://127.0.0.1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", [200, 404]),
        ("\r\n" + NEXT, [400]),
    ],
)
def test_a_request_in_an_unusual_form_is_answered(port, sent, expected):
    answer = exchange(port, sent)
    assert statuses(answer) == expected or statuses(answer)[0] in expected, answer
    assert "the body is []" in answer or "[]" not in sent


def test_a_client_that_has_closed_its_side_is_answered(port):
    assert statuses(exchange(port, f"{GET}\r\n", half_closed=True)) in ([200], [])
    assert statuses(exchange(port, GET, half_closed=True)) in ([400], [])


def test_bodies_and_headers_that_trickle_end_in_time_and_others_are_answered(port, monkeypatch):
    monkeypatch.setattr(chat.api, "TIMEOUT", 1.0)
    monkeypatch.setattr(chat.connections, "REQUEST_TIMEOUT", 1.0)
    ended: list[float] = []

    def trickle(beginning: str) -> None:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(beginning.encode())
            try:
                while time.monotonic() - start < 20:
                    connection.sendall(b"1")
                    time.sleep(0.05)
            except OSError:
                pass
        ended.append(time.monotonic() - start)

    slow = [f"{POST}Content-Length: 900\r\n\r\n", GET + "a: ", "", f"{POST}Transfer-Encoding: chunked\r\n\r\n5;a="] * 5
    threads = [threading.Thread(target=trickle, args=(beginning,)) for beginning in slow]
    for thread in threads:
        thread.start()
    assert statuses(exchange(port, NEXT)) == [200]
    for thread in threads:
        thread.join()
    assert max(ended) < 15


def test_an_assistants_message_as_clients_return_it_is_taken_back():
    import json

    def parsed(**extra):
        messages = [{"role": "user", "content": "感冒怎么办"}, REPLY | extra, {"role": "user", "content": "然后呢"}]
        return parse_request(json.dumps({"model": "base", "messages": messages}).encode())

    request, ignored = parsed(tool_calls=None, reasoning_content="想", name="helper", reasoning_details=[{"a": 1}])
    assert [message["content"] for message in request.conversation] == ["感冒怎么办", "休息", "然后呢"]
    assert set(ignored) == {"messages.reasoning_content", "messages.name", "messages.reasoning_details"}
    request, ignored = parsed(content=None)
    assert (request.conversation[1]["content"], ignored) == ("", ())
