"""The client of OpenAI-compatible servers: what each kind is asked, and what is said when one does not answer."""

import json
import socket
import threading
import time
from importlib.util import find_spec

import pytest

from tests.helpers.fake_server import NOTHING, Said, completion, fake_server, models
from tests.helpers.ports import free_port
from tuneline.endpoint import transport
from tuneline.endpoint.client import CHAT, Endpoint, read_reply, unknown_fields
from tuneline.endpoint.in_flight import in_flight
from tuneline.endpoint.transport import RefusedError, UnreachableError, is_local, root_url

ASKED = [{"role": "user", "content": "x"}]
LLAMA_CPP = {"default_generation_settings": {}, "build_info": "b9999-abc", "model_path": "m.gguf"}
KINDS = {
    "/version": ("vllm", "0.32.0", {"version": "0.32.0"}),
    "/props": ("llama.cpp", "b9999-abc", LLAMA_CPP),
    "/get_server_info": ("sglang", "0.5", {"model_path": "m", "version": "0.5"}),
    "/info": ("tgi", "3.3", {"model_id": "m", "max_input_tokens": 9, "version": "3.3"}),
    "/api/version": ("ollama", "0.20", {"version": "0.20"}),
    "/openapi.json": ("transformers", None, {"paths": {"/load_model": {}}}),
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)


class Served:
    """Answers by path, and what was asked."""

    def __init__(self, **answers):
        self.answers = {"/v1/models": models("m", "n"), CHAT: completion("hello")} | answers
        self.asked = []

    def __call__(self, asked):
        self.asked.append(asked)
        answer = self.answers.get(asked.path, NOTHING)
        return answer(asked) if callable(answer) else answer

    def bodies(self, path=CHAT):
        return [asked.body for asked in self.asked if asked.path == path]


def ask(served, model="m", **options):
    with fake_server(served) as url, Endpoint(f"{url}/v1", model, timeout=5, **options) as endpoint:
        return endpoint.chat(ASKED, max_tokens=4)


@pytest.mark.parametrize("path", KINDS)
def test_a_kind_of_server_is_known_by_what_it_alone_has(path):
    kind, version, said = KINDS[path]
    served = Served(**{path: Said(200, said)})
    with fake_server(served) as url, Endpoint(url, "m") as endpoint:
        assert endpoint.server()[:2] == (kind, version)
        assert endpoint.server() is endpoint.server()
        endpoint.chat(ASKED, max_tokens=4)
    (body,) = served.bodies()
    assert (body["temperature"], body["presence_penalty"], body["max_tokens"]) == (0, 0, 4)
    assert body.get("repetition_penalty", body.get("repeat_penalty", 1)) == 1
    assert ("top_p" in body) is (kind != "tgi")
    assert ("repetition_penalty" in body) is (kind in ("vllm", "sglang"))


def test_our_own_api_is_known_by_its_models_and_another_is_unknown():
    with (
        fake_server(Served(**{"/v1/models": models("base", owner="tuneline")})) as url,
        Endpoint(url, "base") as endpoint,
    ):
        assert endpoint.server().kind == "tuneline"
    # Some answer every path with a page.
    page = Said(200, "<html>")
    with (
        fake_server(lambda asked: models("m") if asked.path == "/v1/models" else page) as url,
        Endpoint(url, "m") as endpoint,
    ):
        assert endpoint.server().kind == "unknown"


def test_a_reply_has_all_that_the_server_tells():
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"reasoning_content": "hm", "tool_calls": calls}
    reply = ask(Served(**{CHAT: completion("", "tool_calls", 3, **message)}))
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("", "tool_calls", 7, 3)
    assert (reply.reasoning, reply.tool_calls, reply.ids) == ("hm", tuple(calls), None)
    bare = read_reply({"choices": [{"message": {"content": None}}]}, "u")
    assert bare == ("", "", None, None, "", (), None, ())


def test_fields_that_a_server_does_not_know_are_left_out_for_good():
    def picky(asked):
        for name in ("seed", "presence_penalty"):
            if name in asked.body:
                return Said(422, {"detail": f"Unexpected fields in the request: {{'{name}'}}"})
        return completion("hello")

    served = Served(**{CHAT: picky})
    with fake_server(served) as url, Endpoint(url, "m") as endpoint:
        assert endpoint.chat(ASKED, max_tokens=4).text == "hello"
        assert endpoint.unknown == {"seed", "presence_penalty"}
        assert endpoint.chat(ASKED, max_tokens=4).left_out == ("presence_penalty", "seed")
    assert len(served.bodies()) == 4
    assert served.bodies()[-1].keys() == {
        "model",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
    }


def test_what_changes_the_answer_is_never_left_out():
    refused = RefusedError("", 400, "temperature, messages and model do not fit max_tokens")
    assert unknown_fields(refused, {"temperature": 0, "messages": [], "model": "m", "max_tokens": 4}) == set()
    newer = RefusedError("", 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    assert unknown_fields(newer, {"max_tokens": 4}) == {"max_tokens"}
    assert unknown_fields(RefusedError("", 500, "seed"), {"seed": 1}) == set()
    thinking = RefusedError("", 422, "Unexpected fields in the request: {'chat_template_kwargs'}")
    assert unknown_fields(thinking, {"chat_template_kwargs": {}}) == set()


@pytest.mark.parametrize(("kind", "path"), [("/version", "/tokenize"), ("/props", "/apply-template")])
def test_prompt_ids_are_asked_for_with_the_switches_of_a_request(kind, path):
    served = Served(**{kind: Said(200, KINDS[kind][2]), path: Said(200, {"prompt": "<p>", "tokens": [5]})})
    way = {"chat_template_kwargs": {"enable_thinking": False}}
    with fake_server(served) as url, Endpoint(url, "m") as endpoint:
        endpoint.prompt_ids(ASKED, None, way)
    assert served.bodies(path)[0].items() >= way.items()


def test_the_limit_goes_by_its_newer_name_where_the_older_is_refused():
    message = {"error": {"message": "max_tokens is not supported, use max_completion_tokens", "param": "max_tokens"}}
    served = Served(**{CHAT: lambda asked: Said(400, message) if "max_tokens" in asked.body else completion("a")})
    assert ask(served).text == "a"
    assert served.bodies()[-1]["max_completion_tokens"] == 4


def test_prompt_ids_and_likelihoods_by_each_kinds_own_interface():
    def of(path, kind_said, **answers):
        return Served(**{path: Said(200, kind_said), **answers})

    def found(served):
        with fake_server(served) as url, Endpoint(url, "m") as endpoint:
            return endpoint.prompt_ids(ASKED), endpoint.nll([5, 6, 7]), endpoint.nll([5, 6, 7], 2)

    def tokens(asked):
        return Said(200, {"tokens": [5, 6, 7], "count": 3})

    logprobs = [None, {"6": {"logprob": -1.5}, "9": {"logprob": -0.1}}, {"7": {"logprob": -0.25}}]
    vllm = of(
        "/version", {"version": "0.32"},
        **{"/tokenize": tokens, "/v1/completions": Said(200, {"choices": [{"prompt_logprobs": logprobs}]})},
    )  # fmt: skip
    assert found(vllm) == ([5, 6, 7], [1.5, 0.25], [0.25])
    assert vllm.bodies("/tokenize")[0]["add_generation_prompt"] is True
    assert vllm.bodies("/v1/completions")[0]["prompt"] == [5, 6, 7]

    info = {"input_token_logprobs": [[None, 5, None], [-1.5, 6, None], [-0.25, 7, None]]}
    sglang = of(
        "/get_server_info", {"model_path": "m", "version": "0.5"}, **{"/generate": Said(200, {"meta_info": info})}
    )
    assert found(sglang) == (None, [1.5, 0.25], [0.25])

    def forced(asked):
        ((number, bias),) = asked.body["logit_bias"]
        assert bias > 1000 and asked.body["n_predict"] == 1
        logprob = {6: -1.5, 7: -0.25}[number]
        return Said(200, {"completion_probabilities": [{"id": number, "token": "?", "logprob": logprob}]})

    llama = of(
        "/props", LLAMA_CPP,
        **{"/apply-template": Said(200, {"prompt": "<p>"}), "/tokenize": tokens, "/completion": forced},
    )  # fmt: skip
    assert found(llama) == ([5, 6, 7], [1.5, 0.25], [0.25])
    assert llama.bodies("/tokenize")[0] == {"content": "<p>", "add_special": True, "parse_special": True}
    assert [body["prompt"] for body in llama.bodies("/completion")] == [[5], [5, 6], [5, 6]]

    tgi_said = {"templated_text": "<p>", "tokenize_response": [{"id": 5, "text": "a"}, {"id": 6, "text": "b"}]}
    tgi = of("/info", {"model_id": "m", "max_input_tokens": 9}, **{"/chat_tokenize": Said(200, tgi_said)})
    assert found(tgi) == ([5, 6], None, None)

    echoed = {"choices": [{"logprobs": {"token_logprobs": [None, -1.5, -0.25, -3.0]}}]}
    assert found(Served(**{"/v1/completions": Said(200, echoed)})) == (None, [1.5, 0.25], [0.25])
    assert found(Served()) == (None, None, None)
    assert found(of("/api/version", {"version": "0.20"})) == (None, None, None)


def test_likelihoods_of_other_tokens_or_too_few_are_none():
    def found(logprobs):
        answers = {"/version": Said(200, {"version": "1"})}
        answers["/v1/completions"] = Said(200, {"choices": [{"prompt_logprobs": logprobs}]})
        with fake_server(Served(**answers)) as url, Endpoint(url, "m") as endpoint:
            return endpoint.nll([5, 6, 7])

    assert found([None, {"6": {"logprob": -1.0}}]) is None
    assert found([None, {"6": {"logprob": -1.0}}, {"8": {"logprob": -1.0}}]) is None
    assert found(None) is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Said(401, {"error": {"message": "bad key"}}), r"wants another API key \(401: bad key\)"),
        (Said(404, {"error": {"message": "no such model"}}), r"has no model 'm', it has a, b \(no such model\)"),
        (Said(400, {"detail": "too long"}), r"refuses the request \(400: too long\)"),
        (Said(307, "", {"Location": "https://x/v1"}), "has moved to https://x/v1: give that URL"),
        (Said(200, "<html>hello"), "answers '<html>hello', which is no JSON: expected an OpenAI-compatible API"),
        (Said(200, {"result": 3}), "expected a chat completion as OpenAI's API has it"),
        (Said(200, [1]), "expected a chat completion as OpenAI's API has it"),
        (None, r"no server answers at http://127.0.0.1:\d+ \(.+\): start it, or correct the URL"),
    ],
)  # fmt: skip
def test_each_failure_is_one_sentence(answer, says):
    def served(asked):
        return models("a", "b") if asked.path == "/v1/models" else answer if asked.path == CHAT else NOTHING

    with (
        fake_server(served) as url,
        Endpoint(url, "m", retries=1, timeout=5) as endpoint,
        pytest.raises(ValueError, match=says) as found,
    ):
        endpoint.chat(ASKED, max_tokens=4)
    assert "\n" not in str(found.value)


def test_no_server_no_host_and_no_url_are_one_sentence():
    for url, says in (
        (f"http://127.0.0.1:{free_port()}/v1", "no server answers at http://127.0.0.1"),
        ("http://nothing.invalid/v1", "nothing.invalid is no known host"),
    ):
        with Endpoint(url, "m", retries=1) as endpoint, pytest.raises(UnreachableError, match=says):
            endpoint.chat(ASKED, max_tokens=4)
    for wrong in (
        "localhost:8000", "ftp://x/v1", "http://", "", "http://localhost:80a0/v1", "http://h:99999", "http://[::1",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected one such as http://localhost:8000/v1"):
            Endpoint(wrong, "m")
    with pytest.raises(ValueError, match="put the key into an environment variable") as found:
        Endpoint("http://me:secret@x/v1", "m")
    assert "secret" not in str(found.value)
    with pytest.raises(ValueError, match="the URL has a port, a host or a character that none can have") as found:
        Endpoint("http://me:secret/1@x/v1", "m")
    assert "secret" not in str(found.value)


def test_a_server_that_hangs_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        says = "has not answered within 0.2 s, twice"
        with Endpoint(url, "m", timeout=0.2) as endpoint, pytest.raises(UnreachableError, match=says):
            endpoint.models()


def test_a_busy_server_is_asked_again_when_it_says_so():
    times = []

    def busy(asked):
        times.append(time.monotonic())
        return [Said(429, {}, {"Retry-After": "0.3"}), Said(503, {}), Said(500, {}), completion("a")][len(times) - 1]

    assert ask(Served(**{CHAT: busy})).text == "a"
    assert times[1] - times[0] >= 0.3
    refusals = [0]

    def full(asked):
        refusals[0] += 1
        return Said(503, {"error": "queue is full"}) if refusals[0] < 8 else completion("a")

    # More often than a request that fails would be tried: a queue has an end.
    assert ask(Served(**{CHAT: full}), retries=1).text == "a"
    full_for_ever = Served(**{CHAT: Said(503, {"error": "queue is full"})})
    with (
        fake_server(full_for_ever) as url,
        Endpoint(url, "m", timeout=0.5) as endpoint,
        pytest.raises(UnreachableError, match=r"is busy or has no model yet \(503: queue is full\)"),
    ):
        endpoint.chat(ASKED, max_tokens=4)
    always = Served(**{CHAT: Said(500, {"error": "broken"})})
    with pytest.raises(RefusedError, match="500: broken"):
        ask(always, retries=2)
    assert len(always.bodies()) == 3


def test_the_key_goes_into_the_header_alone():
    served = Served()
    ask(served, api_key="the-key")
    assert {asked.headers.get("authorization") for asked in served.asked} == {"Bearer the-key"}
    assert "the-key" not in json.dumps(served.bodies())


def test_a_key_has_no_line_end_and_is_never_shown():
    served = Served()
    ask(served, api_key=" the-key\r\n")
    assert {asked.headers.get("authorization") for asked in served.asked} == {"Bearer the-key"}
    for wrong in ("secret\nmore", "secret\x00", "sécret", " \n"):
        with pytest.raises(ValueError, match="expected one line of printable ASCII") as found:
            Endpoint("http://h", "m", wrong)
        assert "cret" not in str(found.value)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://u:secret@h:80a0",
        pytest.param(
            "socks5://u:secret@h:1", marks=pytest.mark.skipif(bool(find_spec("socksio")), reason="socksio is installed")
        ),
    ],
)
def test_a_proxy_that_can_not_be_used_is_one_sentence(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ValueError, match="a proxy of the environment can't be used") as found:
        Endpoint("http://h", "m")
    assert "secret" not in str(found.value)
    assert "\n" not in str(found.value)


def test_proxies_are_not_for_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert ask(Served()).text == "hello"
    assert [is_local(host) for host in ("localhost", "127.0.0.9", "::1", "a.localhost", "example.com", "10.0.0.1")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


def test_a_url_is_taken_with_or_without_its_path():
    for given in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", " http://h:1/v1/chat/completions"):
        assert root_url(given) == "http://h:1"
    assert root_url("https://h/llm/v1") == "https://h/llm"


def test_so_many_are_in_flight_and_no_more():
    running, most, lock = [0], [0], threading.Lock()

    def slow(item):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.005)
        with lock:
            running[0] -= 1
        if item % 10 == 3:
            raise ValueError(f"{item} is refused")
        return item * 2

    found = dict(in_flight(slow, range(60), 7))
    assert most[0] == 7
    assert {item: answer for item, answer in found.items() if item % 10 != 3} == {
        n: 2 * n for n in range(60) if n % 10 != 3
    }
    assert str(found[13]) == "13 is refused"
    with pytest.raises(ZeroDivisionError):
        list(in_flight(lambda item: 1 / item, [0], 2))


def test_items_are_taken_when_they_are_asked():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    answers = in_flight(lambda item: item, items(), 4)
    next(answers)
    assert len(taken) <= 5
    answers.close()
    assert list(in_flight(lambda item: item, [], 4)) == []
