"""`evaluate.backend: endpoint`: a server's answers as those of a model in this process, and a server that dies half-way."""

import json
import threading
from pathlib import Path

import pytest

import stages.evaluate
import stages.predict_base
import stages.report
from chat.openai.schema import parse_request
from tests.helpers.fake_server import NOTHING, Said, completion, fake_server, models
from tests.helpers.stages import run_main
from tests.helpers.workspace import CHATS, make_trained, write_records
from tuneline.endpoint import transport
from tuneline.endpoint.client import CHAT, Endpoint, Reply
from tuneline.evaluate.compare import compare
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.endpoint import asking
from tuneline.evaluate.endpoint.asking import Wanted, ask_all
from tuneline.evaluate.endpoint.kept import LONGEST, Kept, digest, kept_answers
from tuneline.evaluate.endpoint.questions import Asker, openai_messages
from tuneline.evaluate.endpoint.replies import ReplyReader, parsed_calls
from tuneline.evaluate.endpoint.sides import api_key, backend_record, check_backend
from tuneline.evaluate.general_prompts import PROMPTS
from tuneline.formats.metrics import METRICS
from tuneline.formats.records import read_heldout
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.chat_format import load_prompter
from tuneline.models.loading import load_tokenizer
from tuneline.runtime.params import load

ASKED = {"max_new_tokens": 6, "max_thinking_tokens": 8, "batch_size": 3, "dtype": "float32", "constrain": None}
NAMES = {"model": "tuned", "base_model": "base", "concurrency": 3}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)


@pytest.fixture
def project(workspace, llama_base):
    """A folder as `train` leaves it; call it with params of `evaluate`."""
    root = workspace(evaluate=ASKED)
    make_trained(root, llama_base)
    write_records(root, CHATS)
    Path("data/processed/classes.json").write_text("{}")
    Path("metrics/loss.csv").write_text("step,loss\n1,3.5\n")

    def run(stage, **evaluate):
        workspace(evaluate=ASKED | NAMES | evaluate)
        return run_main(stage)

    return run


def lines(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


class Server:
    """Answers with the question turned round, `lives` times; asked for likelihoods with `nll` None it dies."""

    def __init__(self, lives=10**9, version="1.0", nll=True):
        self.lives, self.version, self.nll = lives, version, nll
        self.asked = []
        self.lock = threading.Lock()

    def __call__(self, asked):
        with self.lock:
            if self.lives <= 0 or (asked.path == "/v1/completions" and self.nll is None):
                return None
            if asked.path == "/v1/completions" and self.nll:
                self.lives -= 1
                ids = asked.body["prompt"]
                return Said(
                    200, {"choices": [{"prompt_logprobs": [None, *({str(n): {"logprob": -n / 100}} for n in ids[1:])]}]}
                )
            if asked.path == CHAT:
                self.lives -= 1
                question = asked.body["messages"][-1]["content"]
                self.asked.append((asked.body["model"], question))
                return completion(question[::-1], tokens=3)
        return {"/v1/models": models("base", "tuned"), "/version": Said(200, {"version": self.version})}.get(
            asked.path, NOTHING
        )


def test_answers_of_two_backends_are_not_compared(project):
    with fake_server(Server()) as url:
        project(stages.predict_base, backend="endpoint", url=url)
    says = r"evaluate.backend is transformers, and the base's answers are by another one: run `dvc repro predict_base`"
    with pytest.raises(ValueError, match=says):
        project(stages.evaluate, backend="transformers")
    with pytest.raises(ValueError, match="evaluate.backend is endpoint"):
        check_backend(Evaluate(**ASKED, backend="endpoint", url="http://h", **NAMES), [{"id": "s:0"}])


def test_both_stages_ask_the_server_and_say_so(project, capsys):
    server = Server()
    with fake_server(server) as url:
        project(stages.predict_base, backend="endpoint", url=f"{url}/v1")
        stage = project(stages.evaluate, backend="endpoint", url=f"{url}/v1")
    questions = [chat[0]["content"] for chat in CHATS] + [prompt.question for prompt in PROMPTS.values()]
    assert sorted(server.asked) == sorted((name, asked) for name in ("base", "tuned") for asked in questions)
    rows = lines("metrics/predictions.jsonl")
    assert [row["tuned"] for row in rows] == [chat[0]["content"][::-1] for chat in CHATS]
    assert [row["id"] for row in rows] == [f"s:{n}" for n in range(8)]
    assert all(row["stopped_at_eos"] == {"base": True, "tuned": True} and row["batch"] is None for row in rows)
    details = json.loads(Path("metrics/eval_details.json").read_text())
    assert details["generation"] == {
        "decoding": "greedy",
        "max_new_tokens": 6,
        "constrain": None,
        "backend": "endpoint",
        "models": {"base": "base", "tuned": "tuned"},
        "servers": {"base": "vllm 1.0", "tuned": "vllm 1.0"},
        "left_out": {"base": [], "tuned": []},
        # It says 7 of all.
        "other_prompt_lengths": {"base": 8, "tuned": 8},
    }
    assert "8 of 8 prompts are of another length at the server" in capsys.readouterr().out
    info = stage.run_info
    assert (info["backend"], info["server"], info["asked"]) == ("endpoint", "vllm 1.0", 28)
    assert info["new_tokens_per_second"] > 0
    # The sum over the reference's tokens, its end left out.
    prompter = load_prompter(load_tokenizer(Path("models/base")))
    labels = [label for label in prompter.training_row(CHATS[0]).labels if label != -100]
    (first, *_) = lines("data/processed/base_answers.jsonl")
    assert first["nll"] == pytest.approx(sum(labels[:-1]) / 100)
    assert first["tokens"] == len(labels) - 1
    project(stages.report)
    report = Path("metrics/report.html").read_text(encoding="utf-8")
    assert "Answered by a server, and not by the files of this project: base base at vllm 1.0, tuned tuned at" in report
    assert not list(Path("scratch/answers").iterdir())


def test_what_the_server_cannot_say_is_null_and_the_report_says_so(project):
    with fake_server(Server(nll=False)) as url:
        project(stages.predict_base, backend="endpoint", url=url)
        project(stages.evaluate, backend="endpoint", url=url)
    found = json.loads(Path("metrics/eval.json").read_text())
    assert (found["nll_per_char"], found["general_nll_change"]) == (None, None)
    assert found["rouge_l"] is not None
    assert {row["scores"]["tuned"]["nll_per_token"] for row in lines("metrics/predictions.jsonl")} == {None}
    details = json.loads(Path("metrics/eval_details.json").read_text())
    assert details["general"] == {"nll_per_token": None, "prompts": 20}
    assert not {"nll_per_char", "nll_per_token"} & {*details["delta"], *details["base"], *details["versions"]}
    project(stages.report)
    report = Path("metrics/report.html").read_text(encoding="utf-8")
    assert "NLL was not measured: the server tells no likelihood of a given text." in report
    assert "NLL" not in Path("metrics/intervals.csv").read_text()


def test_a_server_that_fails_at_one_likelihood_is_asked_for_that_one_again(project):
    answer, asked_ids, broken = Server(), [], []

    def served(asked):
        if asked.path == "/v1/completions":
            with answer.lock:
                asked_ids.append(tuple(asked.body["prompt"]))
                if len(set(asked_ids)) == 5 and not broken:
                    broken.append(asked_ids[-1])
            if asked_ids and tuple(asked.body["prompt"]) in broken:
                return Said(500, {"error": "out of memory"})
        return answer(asked)

    with fake_server(served) as url:
        with pytest.raises(
            ValueError, match=r"1 items were refused .*500: out of memory.*27 of 28 likelihoods are kept"
        ):
            project(stages.predict_base, backend="endpoint", url=url, concurrency=1)
        failed = list(broken)
        asked_ids.clear()
        broken[:] = [()]
        project(stages.predict_base, backend="endpoint", url=url, concurrency=1)
    assert asked_ids == failed
    assert None not in {row["nll"] for row in lines("data/processed/base_answers.jsonl")}


def test_a_server_that_dies_costs_only_what_was_missing(project):
    server = Server(lives=17)
    with fake_server(server) as url:
        with fake_server(Server()) as another:
            project(stages.predict_base, backend="endpoint", url=another)
        with pytest.raises(ValueError, match=r"no server answers at .*; 17 of 28 answers are kept, and the next run"):
            project(stages.evaluate, backend="endpoint", url=url)
        assert not Path("metrics/eval.json").exists()
        before, server.lives = list(server.asked), 12
        # 11 answers, the trial of a likelihood, and then it dies again.
        with pytest.raises(
            ValueError, match=r"1 of 28 likelihoods are kept, and the next run asks only for the others"
        ):
            project(stages.evaluate, backend="endpoint", url=url)
        server.lives = 10**9
        stage = project(stages.evaluate, backend="endpoint", url=url)
    assert len(before) == 17
    assert len(server.asked) == len(set(server.asked)) == 28
    assert stage.run_info["asked"] == 0
    assert len(lines("metrics/predictions.jsonl")) == 8


def test_kept_answers_are_never_those_of_other_params_servers_or_models(project):
    server = Server(nll=None)

    def asked(**changes) -> int:
        """How many questions a run asks anew, which then ends for want of a likelihood."""
        before = len(server.asked)
        with pytest.raises(ValueError, match="0 of 1 likelihoods are kept"):
            project(stages.predict_base, **{"backend": "endpoint", "url": url} | changes)
        return len(server.asked) - before

    with fake_server(server) as url:
        assert asked() == 28
        assert asked() == 0
        assert asked(max_new_tokens=7) == 8
        assert asked(base_model="another") == 28
        server.version = "1.1"
        assert asked() == 28
        Path("models/base/SHA256SUMS").write_text("another base")
        assert asked() == 28
        assert asked() == 0


def test_items_that_are_refused_end_the_stage_with_their_names(project):
    def picky(asked):
        refused = asked.path == CHAT and asked.body["messages"][-1]["content"] in ("失眠了", "我咳嗽", "腰酸", "牙痛")
        return Said(400, {"message": "too long by 9 tokens"}) if refused else Server()(asked)

    with (
        fake_server(picky) as url,
        pytest.raises(ValueError, match=r"4 items were refused \(s:\d: .* \(400: too long by 9") as found,
    ):
        project(stages.predict_base, backend="endpoint", url=url)
    assert "; and 1 more): mend the server, or list them in data.exclude; 24 of 28 answers are kept" in str(found.value)


def test_a_server_that_refuses_everything_is_not_asked_everything(tmp_path):
    wanted = [Wanted(str(number), f"s:{number}", lambda: 1 / 0) for number in range(1000)]
    asked = []

    def refuse():
        asked.append(1)
        raise ValueError("no")

    wanted = [one._replace(ask=refuse) for one in wanted]
    says = r"items were refused \(s:\d+: no; .*0 of 1000 answers are kept"
    with Endpoint("http://localhost:1", "m") as endpoint, pytest.raises(ValueError, match=says):
        ask_all(endpoint, wanted, Kept(tmp_path / "kept.jsonl"), 4, "test", "answers")
    assert asking.MOST_REFUSED <= len(asked) <= asking.MOST_REFUSED + 4


def test_kept_answers_outlive_a_torn_line_and_not_a_week(tmp_path, monkeypatch):
    path = tmp_path / "kept.jsonl"
    kept = Kept(path)
    kept.put("a", {"text": "甲\n乙"})
    kept.put("b", None)
    path.write_bytes(path.read_bytes()[:-3] + b"\n" + b'["c", {"te')
    again = Kept(path)
    assert again.values == {"a": {"text": "甲\n乙"}} and again.before == 1
    again.put("d", 4)
    assert Kept(path).values == {"a": {"text": "甲\n乙"}, "d": 4}
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path))
    old, later = kept_answers("a"), path.stat().st_mtime + LONGEST + 100
    old.put("a", 1)
    monkeypatch.setattr("time.time", lambda: later)
    assert kept_answers("a").values == {} and not old.path.exists()
    # Another run, which has begun at the same time, has removed it first.
    monkeypatch.setattr(Path, "glob", lambda *_: iter([old.path]))
    assert kept_answers("a").values == {}
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_thousands_of_answers_are_read_once_and_written_a_line_each(tmp_path):
    kept = Kept(tmp_path / "kept.jsonl")
    wanted = [Wanted(str(number), str(number), lambda number=number: {"text": str(number)}) for number in range(5000)]
    with Endpoint("http://localhost:1", "m") as endpoint:
        assert len(ask_all(endpoint, wanted, kept, 8, "test", "answers")) == 5000
        again = Kept(tmp_path / "kept.jsonl")
        assert again.values == kept.values and again.before == 5000
        assert ask_all(endpoint, wanted, again, 8, "test", "answers") == set()


def test_a_missing_key_and_wrong_params_are_refused(monkeypatch, workspace):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ValueError, match=r"evaluate.api_key_env is SOME_KEY, and no such variable is set"):
        api_key("SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "k")
    assert (api_key("SOME_KEY"), api_key(None)) == ("k", None)
    url = "http://localhost:8000/v1"
    for wrong, says in (
        ({"backend": "server"}, "evaluate.backend is 'server', expected 'transformers' or 'endpoint'"),
        ({"backend": "endpoint"}, "expected url and model and base_model beside backend endpoint"),
        ({"url": "localhost:8000"}, "evaluate.url is 'localhost:8000', expected null, or the URL of an API"),
        ({"url": "http://me:pass@x/v1"}, "expected null, or the URL of an API without a user's name"),
        ({"api_key_env": "sk-abc"}, "expected null, or the name of an environment variable; the key itself"),
        ({"concurrency": 0}, "evaluate.concurrency is 0, expected greater than 0"),
        (
            {"backend": "endpoint", "url": url, "model": "m", "base_model": "m"},
            "expected two models to compare: base_model or base_url other than model and url",
        ),
        (
            {"backend": "endpoint", "url": url, **NAMES, "constrain": "training_set"},
            "expected constrain null beside backend endpoint",
        ),
    ):
        root = workspace(evaluate=Evaluate(**ASKED).model_dump() | wrong)
        with pytest.raises(ValueError, match=says):
            load(Evaluate, root / "params.yaml")
    both = Evaluate(**ASKED, backend="endpoint", url=url, base_url="http://b", model="m", base_model="m")
    assert both.base_endpoint == ("http://b", "m")
    assert backend_record(Evaluate(**ASKED), [], []) == {"backend": "transformers"}
    refused = [{"server": "vllm 1.0", "left_out": ["seed"]}, {"server": "vllm 1.0", "left_out": ["seed", "top_p"]}]
    assert backend_record(both, [], refused)["left_out"] == {"base": [], "tuned": ["seed", "top_p"]}


CALLS = [
    {"role": "user", "content": "天气？"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"name": "f", "arguments": {"城": "北京"}}] * 2,
        "reasoning": "想",
    },
    {"role": "tool", "content": "晴"},
    {"role": "tool", "content": "雨"},
]


def test_calls_go_to_the_server_with_ids_and_come_back_without():
    user, calling, first, second = openai_messages(CALLS)
    assert user == {"role": "user", "content": "天气？"}
    ids = [call["id"] for call in calling["tool_calls"]]
    assert [len(name) for name in ids] == [9, 9] and [first["tool_call_id"], second["tool_call_id"]] == ids
    assert calling["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"城": "北京"}'}
    assert calling["reasoning_content"] == "想"
    # Of earlier turns templates leave it out.
    assert "reasoning_content" not in openai_messages([*CALLS, {"role": "user", "content": "谢谢"}])[1]
    # Our own server reads the same conversation in it, and names what it leaves out.
    request, ignored = parse_request(json.dumps({"model": "base", "messages": openai_messages(CALLS)}).encode())
    assert (request.conversation, ignored) == (CALLS, ())
    calls, faults = parsed_calls(calling["tool_calls"])
    assert (calls, faults) == (CALLS[1]["tool_calls"], [])
    broken = [{"function": {"name": "f", "arguments": "{"}}, {"function": {"name": "g", "arguments": "[1]"}}]
    calls, faults = parsed_calls(broken)
    assert calls == [] and faults[0].startswith("f: arguments are no JSON") and faults[1].startswith("g: ")


@pytest.fixture(scope="module")
def parts(llama_base):
    tokenizer = load_tokenizer(llama_base)
    prompter = load_prompter(tokenizer)
    return AnswerReader(tokenizer, prompter), prompter


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(" 多喝水。\ufffd", "length", 1, 6), {"prediction": "多喝水。", "stopped_at_eos": False}),
        (Reply("好", "", 1, 5), {"stopped_at_eos": True}),
        (Reply("好", "", 1, 6), {"stopped_at_eos": False}),
        (Reply("好", "stop", 1, 6, "想"), {"prediction": "好", "reasoning": "想", "stopped_at_eos": True}),
        (
            Reply("", "length", 1, 6, "想"),
            {"prediction": "", "reasoning": "想", "unfinished_thought": True, "stopped_at_eos": False},
        ),
        (Reply("好", "stop", 1, 6, left_out=("seed",)), {"prediction": "好", "left_out": ["seed"]}),
        (Reply("<think>\n想\n</think>\n\n好", "stop", 1, 6), {"prediction": "好", "reasoning": "想"}),
        (Reply("<think>\n想", "length", 1, 6), {"prediction": "", "reasoning": "想", "unfinished_thought": True}),
    ],
)
def test_thoughts_and_ends_are_told_by_whatever_the_server_says(parts, reply, expected):
    reader, prompter = parts
    record = {"id": "s:0", "source": "s", "origin": "f", "task": "qa", "messages": CHATS[0]}
    with fake_server(Server()) as url, Endpoint(url, "m") as endpoint:
        question = Asker(endpoint, prompter, Evaluate(**ASKED)).held_out(record)
    found = ReplyReader("vllm", reader, prompter).answer(record, question, reply, None)
    assert {name: found.get(name) for name in expected} == expected
    assert ("unfinished_thought" in found) is ("unfinished_thought" in expected)
    assert found["nll"] is None and found["tokens"] == len([n for n in question.row.labels if n != -100]) - 1


def test_a_metric_that_one_answer_has_no_value_of_is_not_there():
    scores = dict.fromkeys([name for name, metric in METRICS.items() if metric.task is None], 0.0)
    row = {"task": "qa", "scores": {"base": scores, "tuned": scores}}
    without = {"task": "qa", "scores": {"base": scores, "tuned": scores | {"nll_per_char": None}}}
    assert "nll_per_char" in compare([row, row])["delta"]
    found = compare([row, without])
    assert "nll_per_char" not in found["delta"] and "nll_per_token" in found["delta"]


@pytest.mark.story
def test_our_own_api_answers_as_the_model_in_this_process_does(project):
    import torch

    from chat.engine import Engine
    from chat.models import Models
    from tests.helpers.serving import serving

    def results(**changes):
        project(stages.predict_base, **changes)
        project(stages.evaluate, **changes)
        return lines("metrics/predictions.jsonl"), lines("metrics/general.jsonl")

    (own, own_general) = results(backend="transformers", max_new_tokens=16)
    engine = Engine(Models())
    engine.models._dtype = torch.float32
    with serving(engine) as url:
        there, general = results(
            backend="endpoint", url=f"{url}/v1", model="adapter", base_model="base", max_new_tokens=16
        )
    for row, other in zip(own, there, strict=True):
        for name in ("id", "base", "tuned", "stopped_at_eos", "references"):
            assert row[name] == other[name]
        for side in ("base", "tuned"):
            measured = {name: value for name, value in other["scores"][side].items() if value is not None}
            assert measured.keys() == row["scores"][side].keys()
            assert measured == pytest.approx(row["scores"][side], rel=1e-4)
    assert [one["prediction"] for one in own_general] == [one["prediction"] for one in general]
    details = json.loads(Path("metrics/eval_details.json").read_text())
    assert details["generation"]["servers"] == {"base": "tuneline", "tuned": "tuneline"}
    assert details["generation"]["other_prompt_lengths"] == {"base": 0, "tuned": 0}
    assert len(read_heldout(Path("data/processed/heldout.jsonl"))) == 8
