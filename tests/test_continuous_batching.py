"""Continuous batching: each row of a shared batch gets what it gets alone, and scheduling is bounded and fair."""

import random
import threading
import time
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, LogitsProcessorList

from chat.batching.batch import Batch
from chat.batching.loop import StepLoop
from chat.batching.rows import Row
from chat.batching.scheduling import Limits, admit, prompts_together, width_of
from chat.batching.trial import can_batch
from chat.engine import Constrain, SamplingParams
from chat.generation import gumbel_processors
from chat.limits import BusyError, WaitedError
from tests.helpers.families import FAMILIES, HEADS, SHAPE, raw_checkpoint
from tests.helpers.serving import endless_replies
from tests.helpers.workspace import CHATS

STOP = [7]
SAMPLED = SamplingParams(temperature=1.2, top_p=0.9, top_k=40)


def row(prompt, limit=8, processors=(), **options):
    made = Row("base", list(prompt), limit, LogitsProcessorList(processors), threading.Event(), **options)
    made.stop_ids = STOP
    return made


def read(row) -> list[int]:
    """Tokens that a row's output holds. Raises its error."""
    found = []
    while (item := row.output.get(timeout=10)) is not None:
        if isinstance(item, BaseException):
            raise item
        if not isinstance(item, list):
            found.append(item.id)
    return found


def alone(network, prompt, limit, processors=()) -> list[int]:
    ids = torch.tensor([prompt])
    output = network.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, pad_token_id=0,
        eos_token_id=STOP, logits_processor=LogitsProcessorList(processors),
    )  # fmt: skip
    return output[0, ids.shape[1] :].tolist()


def random_network(config_class: str, **special):
    import transformers

    config = getattr(transformers, config_class)(vocab_size=200, pad_token_id=0, **SHAPE, **HEADS, **special)
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_come_and_go_get_what_they_get_alone(family, tmp_path):
    network = AutoModelForCausalLM.from_pretrained(raw_checkpoint(family, tmp_path), dtype=torch.float32).eval()
    assert can_batch(network)
    draw = random.Random(7)
    asked = []
    for number in range(12):
        prompt = [draw.randrange(8, 200) for _ in range(draw.choice([2, 5, 9, 30, 60]))]
        seeded = SAMPLED._replace(seed=number)
        asked.append((prompt, draw.choice([1, 4, 12, 40]), seeded if number % 3 == 0 else SamplingParams()))
    batch, rows = Batch(network, 0), []
    with torch.inference_mode():
        for prompt, limit, params in asked:
            rows.append(row(prompt, limit, gumbel_processors(params, torch.device("cpu"))))
            batch.add(rows[-1])
            for _ in range(draw.randrange(4)):
                batch.advance()
        while len(batch):
            batch.advance()
    expected = [alone(network, *given[:2], gumbel_processors(given[2], torch.device("cpu"))) for given in asked]
    assert [read(one) for one in rows] == expected
    assert len({tuple(tokens) for tokens in expected}) > 6


def test_long_prompts_come_in_parts_between_the_steps_of_others(monkeypatch):
    monkeypatch.setattr("chat.batching.batch.PROMPT_TOKENS", 16)
    network = random_network("Gemma3TextConfig", sliding_window=8, query_pre_attn_scalar=16)
    first, long = row(range(20, 24), 20), row(range(10, 110), 6)
    batch = Batch(network, 0)
    with torch.inference_mode():
        batch.add(first)
        batch.advance()
        batch.add(long)
        for _ in range(6):
            batch.advance()
        assert len(first.tokens) == 7 and not long.tokens, "a step of the others to each part"
        while len(batch):
            batch.advance()
    assert [read(first), read(long)] == [alone(network, first.prompt, 20), alone(network, long.prompt, 6)]


def test_scores_of_a_prompt_are_those_of_one_pass(monkeypatch):
    monkeypatch.setattr("chat.batching.batch.SCORED_TOKENS", 4)
    network = random_network("LlamaConfig")
    scored, other = row(range(10, 21), 2, top_logprobs=1, scores_prompt=True), row(range(30, 36), 3)
    batch = Batch(network, 0)
    with torch.inference_mode():
        batch.add(other)
        batch.add(scored)
        while len(batch):
            batch.advance()
        expected = torch.log_softmax(network(input_ids=torch.tensor([scored.prompt])).logits[0], -1)
    scores = scored.output.get()
    assert scores[0] is None and [score.id for score in scores[1:]] == scored.prompt[1:]
    own = expected[range(10), scored.prompt[1:]].tolist()
    assert [score.logprob for score in scores[1:]] == pytest.approx(own, abs=1e-5)
    assert scored.output.get().score.logprob == pytest.approx(float(expected[-1].max()), abs=1e-5)


def test_a_row_whose_processor_fails_fails_alone():
    def fails(ids, scores):
        raise ValueError("no token is left")

    network = random_network("LlamaConfig")
    wrong, right, gone = row(range(10, 14), 5, [fails]), row(range(20, 29), 5), row(range(20, 29), 5)
    gone.cancelled.set()
    batch = Batch(network, 0)
    with torch.inference_mode():
        for one in (wrong, right, gone):
            batch.add(one)
        while len(batch):
            batch.advance()
    with pytest.raises(ValueError, match="no token is left"):
        read(wrong)
    assert read(right) == alone(network, right.prompt, 5)
    assert read(gone) == []


def test_a_pass_that_fails_is_told_to_all_and_the_next_one_works(made_engine, monkeypatch):
    engine, step = made_engine, Batch.advance

    def fails(batch):
        step(batch)
        raise MemoryError("no room")

    monkeypatch.setattr(Batch, "advance", fails)
    with pytest.raises(MemoryError, match="no room"):
        list(engine.stream("base", CHATS[0][:1], SamplingParams(max_new_tokens=50)))
    monkeypatch.undo()
    assert list(engine.stream("base", CHATS[0][:1], SamplingParams(max_new_tokens=4)))[-1].finish_reason
    assert engine.in_flight == 0


def test_networks_that_cannot_share_are_found_by_trying():
    from peft import PromptTuningConfig, get_peft_model

    network = random_network("LlamaConfig")
    assert can_batch(network)
    mamba = AutoModelForCausalLM.from_config(mamba_config(), dtype=torch.float32).eval()
    assert not can_batch(mamba)
    prompt = get_peft_model(network, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    assert not can_batch(prompt)


def mamba_config():
    from transformers import MambaConfig

    return MambaConfig(vocab_size=200, hidden_size=32, num_hidden_layers=2, state_size=4)


@pytest.mark.parametrize("name", ["adapter", "base"])
def test_what_cannot_share_is_answered_alone_as_before(made_engine, monkeypatch, name):
    engine, question = made_engine, CHATS[0][:1]
    expected = "".join(delta.text for delta in engine.stream(name, question, SamplingParams(max_new_tokens=12)))
    models = engine.models
    monkeypatch.setitem(models._loaded, name, models.get(name)._replace(batched=False))
    found: list[str] = []

    def ask():
        deltas = engine.stream(name, question, SamplingParams(max_new_tokens=12))
        found.append("".join(delta.text for delta in deltas))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [expected] * 6
    with pytest.raises(ValueError, match="logprobs are asked for, expected none"):
        list(engine.stream(name, question, SamplingParams(top_logprobs=1)))


def test_one_batch_holds_many_requests(made_engine, monkeypatch):
    widths: list[int] = []
    step = Batch._step
    monkeypatch.setattr(Batch, "_step", lambda batch: widths.append(len(batch.rows)) or step(batch))
    endless_replies(made_engine, monkeypatch)
    streams = [made_engine.stream("base", CHATS[0][:1], SamplingParams(max_new_tokens=40)) for _ in range(20)]
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(widths) >= 15 and sum(widths) >= 20 * 39


def test_who_waits_too_long_is_told(made_engine, monkeypatch):
    monkeypatch.setattr("chat.batching.loop.LIMITS", Limits(1, 10_000, 1, 5000))
    monkeypatch.setattr("chat.batching.loop.MAX_WAIT", 0.2)
    endless_replies(made_engine, monkeypatch)
    running = made_engine.stream("base", CHATS[0][:1], SamplingParams(max_new_tokens=1000))
    next(running)
    started = time.monotonic()
    with pytest.raises(WaitedError, match="no place came free within 0 seconds: ask again later"):
        list(made_engine.stream("base", CHATS[0][:1], SamplingParams(max_new_tokens=4)))
    assert time.monotonic() - started < 5
    running.close()
    assert made_engine.in_flight == 0


def test_a_model_that_is_long_in_loading_is_no_queue(made_engine, monkeypatch):
    monkeypatch.setattr("chat.batching.loop.MAX_WAIT", 0.2)
    get = made_engine.models.get
    monkeypatch.setattr(made_engine.models, "get", lambda name: time.sleep(0.4) or get(name))
    assert list(made_engine.stream("base", CHATS[0][:1], SamplingParams(max_new_tokens=4)))[-1].finish_reason


def test_a_model_that_is_being_loaded_holds_up_no_other(made_engine):
    constrained = SamplingParams(max_new_tokens=4, constrain=Constrain("label", ("是", "否")))
    ended: list[str | None] = []

    def ask():
        for params in (SamplingParams(max_new_tokens=4), constrained):
            ended.append(list(made_engine.stream("base", CHATS[0][:1], params))[-1].finish_reason)

    thread = threading.Thread(target=ask)
    with made_engine.models._load_lock:
        thread.start()
        thread.join(20)
        assert len(ended) == 2 and all(ended)


@pytest.mark.parametrize("tools", [(), ({"type": "function", "function": {"name": "f"}},)])
def test_what_the_generation_config_ends_with_ends_a_reply(made_engine, monkeypatch, tools):
    asked = SamplingParams(max_new_tokens=4, top_logprobs=0, tools=tools)
    engine, question = made_engine, CHATS[0][:1]
    # Whose base has no tools: here it is how the reply is read that counts.
    monkeypatch.setattr(engine, "_prompt", lambda *_: engine.models.prompter.generation_prompt(question))
    first = next(engine.stream("base", question, asked)).score.id
    settings = engine.models.get("base").network.generation_config
    monkeypatch.setattr(settings, "eos_token_id", [first])
    assert first not in engine.models.reader.stop_ids
    *_, last = deltas = list(engine.stream("base", question, asked))
    assert (last.finish_reason, last.completion_tokens, "".join(delta.text for delta in deltas)) == ("stop", 1, "")


def test_a_full_house_is_told_at_once(monkeypatch):
    monkeypatch.setattr("chat.batching.loop.MAX_RUNNING", 1)
    monkeypatch.setattr("chat.batching.loop.MAX_WAITING", 1)
    loop = StepLoop(None)
    places = [row([1]), row([2])]
    for one in places:
        loop.reserve(one)
    with pytest.raises(BusyError, match="2 questions are being answered or wait"):
        loop.reserve(row([3]))
    loop.release(places[0])
    loop.reserve(row([3]))


class Asked(NamedTuple):
    name: str
    client: str = "a"
    size: int = 100
    batched: bool = True


LIMITS = Limits(rows=4, tokens=8192, alone=1, widest=5000)


def test_who_came_first_is_first_among_equals():
    waiting = [Asked(f"{n}") for n in range(6)]
    assert admit(waiting, [], LIMITS) == waiting[:4]
    assert admit(waiting, waiting[:3], LIMITS) == waiting[:1]
    assert admit(waiting, waiting[:4], LIMITS) == []


def test_a_client_with_many_requests_does_not_hold_up_another():
    many = [Asked(f"{n}", "many") for n in range(30)]
    few = [Asked("x", "few"), Asked("y", "few")]
    assert admit([*many, *few], [], LIMITS) == [many[0], few[0], many[1], few[1]]
    assert admit([*many, *few], many[:3], LIMITS) == [few[0]]


def test_a_wide_row_waits_for_room_and_is_not_passed():
    wide, narrow = Asked("w", size=4000), Asked("n")
    assert [width_of(size, LIMITS) for size in (1, 1024, 1025, 2048, 2049, 5000)] == [
        1024,
        1024,
        2048,
        2048,
        5000,
        5000,
    ]
    assert admit([wide, narrow, wide, narrow], [], LIMITS) == [wide, narrow]
    assert admit([wide, narrow], [wide], LIMITS) == []
    huge = Asked("h", size=9000)
    assert admit([huge], [], LIMITS) == [huge], "alone it may run"


def test_rows_that_run_alone_have_places_of_their_own():
    single = Asked("s", batched=False)
    assert admit([single, single, Asked("n")], [], LIMITS) == [single, Asked("n")]
    assert admit([single], [single], LIMITS) == []


def test_prompts_are_taken_in_together_up_to_a_size():
    assert prompts_together([100, 100, 100, 100, 100, 100], 512) == 5
    assert prompts_together([600, 1], 512) == 1
    assert prompts_together([10, 400, 10], 512) == 1
    assert prompts_together([3], 512) == 1
