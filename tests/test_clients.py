"""What real clients send: bodies as openai, LangChain, LlamaIndex, Open WebUI, EvalScope and lm-evaluation-harness make them.

Seen with openai 2.54.0, langchain-openai 1.7.4, llama-index-llms-openai-like 0.8.1 and lm-eval 0.4.13; read in the source of
Open WebUI 0.12.4 and EvalScope 1.14.1. The words in them are ours.
"""

import json
import socket

import pytest

from chat.openai.fields import IGNORED, UNSUPPORTED
from chat.openai.schema import parse_request
from tests.helpers.serving import CHAT, error_of

ASKED = [{"role": "user", "content": "感冒怎么办"}]
TEXT = "/v1/completions"
SCHEMA = {"properties": {"a": {"title": "A", "type": "integer"}}, "required": ["a"], "title": "A", "type": "object"}
WRONG = {"type": "no"}
FORMAT = {"name": "A", "strict": True, "schema": {**SCHEMA, "additionalProperties": False}}
REPLY = {"content": "休息", "refusal": None, "role": "assistant", "annotations": None, "audio": None}
REPLY |= {"function_call": None, "tool_calls": None}
OLDER = {
    "frequency_penalty": 0,
    "logprobs": None,
    "max_tokens": 8,
    "n": 1,
    "presence_penalty": 0,
    "seed": None,
    "top_p": 1,
}
CHATS = {
    "openai": {"messages": [*ASKED, REPLY, *ASKED]},
    "openai, parsed": {"messages": [*ASKED, REPLY | {"parsed": {"a": 1}, "reasoning_content": "想"}, *ASKED]},
    "openai, json": {"response_format": {"type": "json_schema", "json_schema": FORMAT}, "stream": False},
    "langchain": {"messages": [{"content": "你是医生。", "role": "system"}, *ASKED], "stream": False},
    "langchain, json": {"response_format": {"type": "json_object"}, "stream": False},
    "langchain, many": {"n": 2, "temperature": 0.5, "top_p": 0.9, "seed": 1, "logprobs": True, "top_logprobs": 2},
    "llamaindex": {"stream": False, "temperature": 0.1},
    "open webui": {"stream": True, "user": "me", "metadata": {"chat": "1"}},
    "evalscope": {"top_k": 5, "top_p": 0.9, "repetition_penalty": 1.0, "n": 1, "temperature": 1.0, "seed": 42},
    "evalscope, developer": {"messages": [{"role": "developer", "content": "你是医生。"}, *ASKED]},
    "lm-eval": {"temperature": 0, "stop": ["\n\n", "Q:"], "seed": 1234},
}  # fmt: skip
TEXTS = {
    "langchain": {"prompt": ["感冒怎么办"], "temperature": 0.7, **OLDER},
    "langchain, streamed": {"prompt": "感冒怎么办", "stream": True, "temperature": 0.7, **OLDER},
    "llamaindex": {"prompt": "感冒怎么办", "stream": False, "temperature": 0.1},
    "lm-eval": {"prompt": ["感冒", "头痛怎么办"], "max_tokens": 8, "temperature": 0, "stop": ["\n\n"], "seed": 1234},
    "lm-eval, ids": {"prompt": [[5, 6, 7], [8, 9]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1, "echo": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(made_engine):
    return made_engine


@pytest.mark.parametrize("name", CHATS)
def test_chats_of_real_clients_are_answered(http, name):
    body = {"model": "adapter", "max_tokens": 8, "messages": ASKED} | CHATS[name]
    answer = http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    if body.get("stream"):
        assert answer.text.endswith("data: [DONE]\n\n")
        return
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(body.get("n", 1)))
    assert all(choice["message"]["role"] == "assistant" for choice in choices)


@pytest.mark.parametrize("name", TEXTS)
def test_completions_of_real_clients_are_answered(http, name):
    body = {"model": "base", **TEXTS[name]}
    answer = http.post(TEXT, json=body)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        assert [choice["index"] for choice in answer.json()["choices"]] == list(range(len(prompts)))


def test_what_changes_nothing_is_ignored_and_named(http):
    asked = {"model": "adapter", "max_tokens": 8, "messages": ASKED}
    plain = http.post(CHAT, json=asked)
    assert "x-ignored-fields" not in plain.headers
    given = http.post(CHAT, json=asked | {"user": "me", "metadata": {"a": "b"}, "store": None})
    assert given.headers["x-ignored-fields"] == "user, metadata"
    assert given.json()["choices"] == plain.json()["choices"]
    named = http.post(CHAT, json=asked | {"messages": [ASKED[0] | {"name": "me"}]})
    assert named.headers["x-ignored-fields"] == "messages.name" and named.json()["choices"] == plain.json()["choices"]
    answered = [
        *ASKED,
        {"role": "assistant", "content": "休息", "annotations": [{}], "reasoning_content": "想"},
        *ASKED,
    ]
    streamed = http.post(CHAT, json=asked | {"messages": answered, "stream": True})
    assert streamed.headers["x-ignored-fields"] == "messages.annotations, messages.reasoning_content"
    # Within a turn that goes on, a template may show the thoughts.
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    thought = {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "想"}
    running = [*answered, thought, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    for messages in (running, [*running[:-2], thought | {"reasoning": "想"}, running[-1]]):
        request, ignored = parse_request(json.dumps({"model": "adapter", "messages": messages}).encode())
        assert [message.get("reasoning") for message in request.conversation] == [None, None, None, "想", None]
        expected = ("messages.annotations", "messages.reasoning_content")
        assert ignored == (*expected, *(["messages.reasoning"] if "reasoning" in messages[-2] else []))


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_would_change_the_answer_is_refused_by_name(http, name):
    asked = {"model": "adapter", "max_tokens": 4, "messages": ASKED}
    for accepted in (*UNSUPPORTED[name], "null"):
        assert http.post(CHAT, json=asked | {name: json.loads(accepted)}).status_code == 200
    assert name in error_of(http.post(CHAT, json=asked | {name: 7}), 400, "unsupported_value", name)
    assert name not in IGNORED


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "A", "schema": WRONG}}}, "response_format"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"n": 9}, "n"),
        ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "1"}}, *ASKED]}, "messages.0.audio"),
        ({"messages": [{"role": "assistant", "content": "x", "refusal": "no"}, *ASKED]}, "messages.0.refusal"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"constrain": {"task": "label", "classes": ["a"]}, "response_format": {"type": "json_object"}}, "response_format"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(http, change, param):
    error_of(http.post(CHAT, json={"model": "adapter", "max_tokens": 4, "messages": ASKED} | change), 400, param=param)


def test_json_is_kept_to_its_schema(http):
    schema = {"type": "object", "properties": {"a": {"enum": ["内科", "骨科"]}, "b": {"type": "boolean"}}}
    schema |= {"required": ["a", "b"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema}}
    body = {"model": "adapter", "messages": ASKED, "max_tokens": 60, "response_format": form, "temperature": 1, "n": 4}
    choices = http.post(CHAT, json=body).json()["choices"]
    for choice in choices:
        assert choice["finish_reason"] == "stop"
        found = json.loads(choice["message"]["content"])
        assert found["a"] in {"内科", "骨科"} and isinstance(found["b"], bool) and len(found) == 2


def test_choices_are_those_of_their_seeds(http):
    body = {"model": "base", "messages": ASKED, "max_tokens": 12, "temperature": 1}

    def texts(**change):
        return [choice["message"]["content"] for choice in http.post(CHAT, json=body | change).json()["choices"]]

    together = texts(n=3, seed=5)
    assert together == [*texts(seed=5), *texts(seed=6), *texts(seed=7)] and len(set(together)) > 1
    with http.stream("POST", CHAT, json=body | {"n": 3, "seed": 5, "stream": True}) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    streamed = ["", "", ""]
    for choice in (json.loads(line)["choices"][0] for line in lines):
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == together


def test_log_probabilities_are_the_models_own(http, engine):
    import torch

    asked = {
        "model": "base",
        "prompt": [[5, 6, 7, 8, 9]],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 2,
        "echo": True,
    }
    (choice,) = http.post(TEXT, json=asked).json()["choices"]
    found = choice["logprobs"]
    model = engine.models.get("base")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.inference_mode(), engine.models.use(model) as network:
        expected = torch.log_softmax(network(input_ids=ids).logits[0].float(), -1)
    own = [*expected[range(4), ids[0, 1:]].tolist(), float(expected[4].max())]
    assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    assert found["token_logprobs"][1:] == pytest.approx(own, abs=2e-3)
    assert [max(top.values()) for top in found["top_logprobs"][1:]] == pytest.approx(
        expected.amax(1).tolist(), abs=2e-3
    )
    assert len(found["tokens"]) == len(found["text_offset"]) == 6
    chat = {"model": "base", "messages": ASKED, "max_tokens": 5, "logprobs": True, "top_logprobs": 3}
    answer = http.post(CHAT, json=chat).json()
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == answer["usage"]["completion_tokens"] and all(
        len(token["top_logprobs"]) == 3 for token in content
    )
    assert all(token["logprob"] == max(top["logprob"] for top in token["top_logprobs"]) for token in content)


def test_echoed_text_is_the_prompts(http):
    plain, echoed = (
        http.post(TEXT, json={"model": "base", "prompt": "感冒怎么办", "max_tokens": 6, "echo": echo}).json()[
            "choices"
        ][0]
        for echo in (False, True)
    )
    assert echoed["text"] == "感冒怎么办" + plain["text"] and echoed["finish_reason"] == plain["finish_reason"]
    error_of(http.post(TEXT, json={"model": "base", "prompt": [[5, 99_999]]}), 400, "invalid_value", "prompt.0")
    error_of(http.post(TEXT, json={"model": "base", "prompt": []}), 400, "invalid_value")
    error_of(http.post("/v1/embeddings", json={"model": "base", "input": ["x"]}), 404)


def raw(address: str, request: bytes) -> bytes:
    """Everything that the server says on one connection."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        found = b""
        while part := connection.recv(65_536):
            found += part
    return found


def test_a_body_has_one_end(address):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    smuggled = (
        head
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    )
    said = raw(address, smuggled)
    assert said.startswith(b"HTTP/1.1 400") and said.count(b"HTTP/1.1") == 1 and b"Transfer-Encoding" in said


def test_headers_are_bounded(address):
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for many in (b"X-A: b\r\n" * 10_000, b"X-A: " + b"a" * 70_000 + b"\r\n"):
        said = raw(address, head + many + b"\r\n")
        assert said.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) and said.count(b"HTTP/1.1") == 1


def test_a_client_that_never_asks_is_let_go(address, http, monkeypatch):
    monkeypatch.setattr("chat.connections.REQUEST_TIMEOUT", 0.3)
    assert raw(address, b"") == b""
    assert raw(address, b"POST /v1/chat/completions HTTP/1.1\r\nHost:") == b""
    assert http.get("/health").status_code == 200
