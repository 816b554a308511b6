"""Servers that are none, or that attack who asks them: one sentence each, in bounded time and memory, without the key."""

import gzip
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from tests.helpers.fake_server import NOTHING, Said, completion, fake_server, models
from tuneline.cli.app import app
from tuneline.endpoint import exchange, transport
from tuneline.endpoint.client import CHAT, Endpoint
from tuneline.evaluate.endpoint.replies import parsed_calls

KEY = "sk-very-secret-0123456789"
ASKED = [{"role": "user", "content": "x"}]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
NO_SERVER, NO_HTTP, NO_JSON = "no server answers at", "does not answer as HTTP has it", "which is no JSON"
NO_CHAT = "expected a chat completion as OpenAI's API has it"
LATE, LONG = "has not answered within", "gives an answer that is longer than 1 MB"
ESCAPED = "".join(f"\\u{ord(sign):04x}" for sign in KEY)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(transport, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(exchange, "MAX_ANSWER", 2**20)


@contextmanager
def raw_server(parts):
    """(URL, bytes sent) of a server that answers every connection with the bytes of `parts()`, and then closes it."""
    sent = [0]
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        with connection:
            try:
                connection.recv(65_536)
                for part in parts():
                    connection.sendall(part)
                    sent[0] += len(part)
            except OSError:
                pass

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", sent
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def refusal(url: str, **options) -> str:
    """The one sentence about a server."""
    with (
        Endpoint(url, "m", KEY, **{"timeout": 2.0, "retries": 1} | options) as endpoint,
        pytest.raises(ValueError) as found,  # noqa: PT011
    ):
        endpoint.chat(ASKED, max_tokens=4)
    said = str(found.value)
    assert said.isprintable() and len(said) < 900 and KEY not in said, said
    return said


def for_ever(first: bytes, part: bytes, pause: float = 0.0):
    def parts():
        yield first
        while True:
            time.sleep(pause)
            yield part

    return parts


RAW = {
    "garbage": (lambda: [b"\x00\xff\x13\x37" * 100], NO_HTTP),
    "another protocol": (lambda: [b"SSH-2.0-OpenSSH_9.6\r\n"], NO_SERVER),
    "no headers": (lambda: [b"{}"], NO_SERVER),
    "nothing": (list, NO_SERVER),
    "two lengths": (lambda: [HEAD + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}1234567"], NO_HTTP),
    "half a body": (lambda: [HEAD + b"Content-Length: 900\r\n\r\n{}"], NO_HTTP),
    "chunks of no size": (lambda: [HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"], NO_HTTP),
    "a header without end": (for_ever(HEAD + b"X-A: ", b"a" * 65_536), NO_HTTP),
    "a header that trickles": (for_ever(HEAD + b"X-A: ", b"a", 0.05), LATE),
    "another answer first, always": (for_ever(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01), LATE),
    "a body that trickles": (for_ever(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 0.05), LATE),
    "a body without end": (for_ever(HEAD + b"\r\n", b"[" * 65_536), LONG),
    "a body of 10 GB": (for_ever(HEAD + b"Content-Length: 10000000000\r\n\r\n", b" " * 65_536), LONG),
    "an error without end": (for_ever(b"HTTP/1.1 400 No\r\n\r\n", b"<html>" * 10_000), "refuses the request"),
    "a bomb": (
        lambda: [HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(50_000_000))],
        "compressed as 'gzip', and nothing compressed was asked for",
    ),
    "two codings": (lambda: [HEAD + b"Content-Encoding: br, gzip\r\n\r\n\x00"], "compressed as 'br, gzip'"),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_answer_is_one_sentence_in_bounded_time(name):
    parts, says = RAW[name]
    began = time.monotonic()
    with raw_server(parts) as (url, sent):
        options = {"timeout": 0.5} if says == LATE else {}
        assert says in refusal(url, **options)
        assert sent[0] < 60_000_000
    assert time.monotonic() - began < 10


def exchanges() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "exchanges"}


def test_many_late_answers_leave_no_thread_behind():
    before = exchanges()
    with raw_server(RAW["a body that trickles"][0]) as (url, _):
        for _ in range(3):
            refusal(url, timeout=0.2)
            # Closing waits for the client's own thread. Others are of clients that somebody else left open.
            assert exchanges() <= before


def choice(message, **more):
    return {"choices": [{"message": message, "finish_reason": "stop"} | more]}


DEEP = "[" * 200_000 + "]" * 200_000
ANSWERS = {
    "a page": ("<!doctype html><title>Log in</title>", NO_JSON),
    "deep": (DEEP, NO_JSON),
    "a number without end": ('{"choices": ' + "9" * 5000 + "}", NO_JSON),
    "half a character": (b'{"choices": "\xff\xfe"}', NO_JSON),
    "null": (None, NO_CHAT),
    "text": ("3", NO_CHAT),
    "no choices": ({"choices": []}, NO_CHAT),
    "choices by name": ({"choices": {"0": {}}}, NO_CHAT),
    "a message in a list": (choice([]), NO_CHAT),
    "a number as text": (choice({"content": 3}), NO_CHAT),
    "a list as text": (choice({"content": [{"type": "text", "text": "a"}]}), NO_CHAT),
    "thoughts by number": (choice({"content": "a", "reasoning": 1}), NO_CHAT),
    "calls in a text": (choice({"content": "a", "tool_calls": "f()"}), NO_CHAT),
    "a call by number": (choice({"content": "a", "tool_calls": [3]}), NO_CHAT),
    "a call of nothing": (choice({"content": "a", "tool_calls": [{"function": {"name": None, "arguments": 3}}]}), NO_CHAT),
    "an end by number": (choice({"content": "a"}, finish_reason=3), NO_CHAT),
    "usage in a list": (choice({"content": "a"}) | {"usage": [1]}, NO_CHAT),
    "a count as text": (choice({"content": "a"}) | {"usage": {"completion_tokens": "7"}}, NO_CHAT),
    "a count with a point": (choice({"content": "a"}) | {"usage": {"completion_tokens": 7.5}}, NO_CHAT),
    "no number": ('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": NaN}}', NO_CHAT),
    "a count of all the world": (choice({"content": "a"}) | {"usage": {"prompt_tokens": 10**30}}, NO_CHAT),
    "ids as text": (choice({"content": "a"}, token_ids=["a"]), NO_CHAT),
    "more text than tokens": (choice({"content": "a" * 900_000}), "answers 900000 characters, expected what 4 tokens can hold"),
    "the key": (choice({"content": f"your key is {KEY}"}), "answers with the API key in its text"),
    "the key, hidden": (f'{{"choices": [{{"message": {{"content": "{ESCAPED}"}}}}]}}', "answers with the API key in its text"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_no_chat_completion_is_one_sentence(name):
    body, says = ANSWERS[name]
    with fake_server(lambda asked: models("m") if asked.path == "/v1/models" else Said(200, body)) as url:
        assert says in refusal(url)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (Said(302, "", {"Location": "file:///etc/passwd"}), "sends elsewhere ('file://"),
        (Said(301, "", {"Location": "javascript:alert(1)"}), NO_HTTP),
        (Said(308, "", {"Location": f"http://elsewhere/?key={KEY}"}), "has moved to http://elsewhere/?key=***: give"),
        (Said(307, "", {"Location": "http://[::bad"}), "has moved to http://[::bad|does not answer as HTTP has it"),
        (Said(401, {"error": {"message": f"{KEY} is wrong"}}), "wants another API key (401: *** is wrong)"),
        (Said(400, f"no\x1b[2J\r\nkey {KEY}\x00 "), "(400: no [2J key ***)"),
        (Said(422, {"detail": [{"msg": KEY * 100}]}), "(422: [{'msg': '***"),
        (Said(400, DEEP), "refuses the request (400: [["),
        (Said(500, {"error": {"error": {"message": {"detail": "deep"}}}}, {"Retry-After": "1e300"}), "(500: deep)"),
        (Said(502, "", {"Retry-After": "nan"}), "is busy or has no model yet (502: )"),
        (Said(429, "", {"Retry-After": "inf"}), "is busy or has no model yet (429: )"),
        (Said(503, "", {"Retry-After": "-7"}), "is busy or has no model yet (503: )"),
        (Said(204, ""), NO_JSON),
        (Said(451, ""), "refuses the request (451: )"),
    ],
)
def test_what_a_refusal_says_is_in_one_line_without_the_key(said, says):
    began = time.monotonic()
    with fake_server(lambda asked: models("m") if asked.path == "/v1/models" else said) as url:
        found = refusal(url, timeout=1.0)
    assert any(one in found for one in says.split("|")), found
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("listed", ["x", None, [3], [None], [{"id": 3}], [{}], [[]], {"a": 1}, [{"id": "\x1b[2J"}]])
def test_lists_of_models_may_hold_anything(listed):
    with fake_server(lambda asked: Said(200, {"data": listed}) if asked.path == "/v1/models" else NOTHING) as url:
        refusal(url)
        with Endpoint(url, "m") as endpoint:
            if isinstance(listed, list):
                assert endpoint.models() == []


def test_names_come_once_and_kinds_are_told_by_what_can_be_one():
    about = {"/version": {"version": {"a": [1]}}, "/openapi.json": {"paths": None}, "/props": [1], "/info": "x"}
    served = {"/v1/models": {"data": [{"id": "m"}, {"id": "m"}, {"id": "n"}]}} | about
    with fake_server(lambda asked: Said(200, served.get(asked.path, None))) as url, Endpoint(url, "m") as endpoint:
        assert endpoint.models() == ["m", "n"]
        assert endpoint.server()[:2] == ("vllm", None)
    for wrong in ({"paths": None}, {"paths": [1]}, {"paths": "/load_model"}):
        with fake_server(lambda asked, wrong=wrong: Said(200, wrong)) as url, Endpoint(url, "m") as endpoint:
            assert endpoint.server().kind in ("unknown", "transformers")


@pytest.mark.parametrize("value", [None, "x", "nan", float("nan"), float("inf"), 10**400, [], {}])
def test_likelihoods_that_are_no_numbers_are_none(value):
    rows = [None, {"6": {"logprob": value}}, {"7": {"logprob": -1.0}}]
    answers = {"/version": {"version": "1"}, "/v1/completions": {"choices": [{"prompt_logprobs": rows}]}}
    answers |= {"/tokenize": {"tokens": [5, True]}, "/v1/models": {"data": []}}
    with fake_server(lambda asked: Said(200, answers.get(asked.path))) as url, Endpoint(url, "m") as endpoint:
        assert endpoint.nll([5, 6, 7]) is None
        assert endpoint.prompt_ids(ASKED) is None


def test_halves_of_characters_and_numbers_without_end_are_written_by_nobody():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}
    said = choice({"content": "a\ud800b", "tool_calls": [call]})
    served = {"/v1/models": models("m"), CHAT: Said(200, said)}
    with fake_server(lambda asked: served.get(asked.path, NOTHING)) as url, Endpoint(url, "m") as endpoint:
        reply = endpoint.chat(ASKED, max_tokens=4)
    assert reply.text == "a\ufffdb"
    for arguments in (call["function"]["arguments"], '{"a": ' + "9" * 30 + "}", DEEP, "{", "[1]"):
        calls, (fault,) = parsed_calls([{"function": {"name": "f", "arguments": arguments}}])
        assert calls == [] and fault.startswith("f: arguments are no ")


def test_nothing_of_a_server_is_kept_for_the_next_request():
    asked = []

    def cookies(one):
        asked.append(one.headers)
        return completion("a")._replace(headers={"Set-Cookie": f"a{len(asked)}={'x' * 3000}"})

    with fake_server(cookies) as url, Endpoint(url, "m") as endpoint:
        for _ in range(3):
            endpoint.chat(ASKED, max_tokens=4)
    assert not any("cookie" in headers for headers in asked)
    assert {headers["accept-encoding"] for headers in asked} == {"identity"}


def test_a_key_that_is_no_secret_is_a_word():
    served = {"/v1/models": models("m"), CHAT: completion("EMPTY is x")}
    with fake_server(lambda asked: served.get(asked.path, NOTHING)) as url:
        for word in ("x", "EMPTY"):
            with Endpoint(url, "m", word) as endpoint:
                assert endpoint.chat(ASKED, max_tokens=40).text == "EMPTY is x"


@pytest.mark.parametrize("name", ["garbage", "a bomb", "a header that trickles", "a body of 10 GB"])
def test_the_command_says_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    with raw_server(RAW[name][0]) as (url, _):
        options = ["--url", f"{url}/v1", "--api-key-env", "MY_KEY", "--timeout", "1"]
        result = CliRunner().invoke(app, ["served", *options])
    assert result.exit_code == 2 and "Traceback" not in result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("served: ") and KEY not in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_key_is_in_no_file(monkeypatch, tmp_path):
    """What the answers' cache, the results and the sentences hold, of a server that repeats the header it was sent."""
    from tuneline.evaluate.endpoint.asking import Wanted, ask_all
    from tuneline.evaluate.endpoint.kept import kept_answers

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path))
    with (
        fake_server(lambda asked: completion(str(asked.headers))) as url,
        Endpoint(url, "m", KEY, retries=0) as endpoint,
    ):
        kept = kept_answers([url])
        wanted = [Wanted("a", "item", lambda: endpoint.send({"messages": ASKED, "max_tokens": 400})._asdict())]
        with pytest.raises(ValueError, match="answers with the API key in its text"):
            ask_all(endpoint, wanted, kept, 1, "test", "answers")
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert json.dumps(kept.values) == "{}"
