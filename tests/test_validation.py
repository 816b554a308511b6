"""Validation by answers: which items, what is asked and measured, and that nothing of the training changes by it."""

import json
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers.methods import method, perturb_trained
from tests.helpers.paths import ROOT
from tests.helpers.workspace import CHATS
from tuneline.evaluate.compare import compare
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.predict import Model, predict
from tuneline.evaluate.results import prediction_rows
from tuneline.formats.example import Encoded
from tuneline.formats.token_file import NEWEST, Tokens, TokenWriter
from tuneline.models.loading import load_adapter, load_model, load_tokenizer
from tuneline.train import methods
from tuneline.train.batching import split
from tuneline.train.collate import collator
from tuneline.train.config.train import Train
from tuneline.train.run import prepare_model
from tuneline.train.validation import processes
from tuneline.train.validation.answering import Answering, check_metrics
from tuneline.train.validation.as_evaluated import as_evaluated
from tuneline.train.validation.cost import cost
from tuneline.train.validation.curve_metrics import BestBy, best_by, best_step, curve_metrics, points, values
from tuneline.train.validation.items import validation_items
from tuneline.train.validation.processes import by_first, wait_for_all
from tuneline.train.validation.rows import right_row

SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
MEASURED = ["rouge_l", "length_ratio", "distinct_2", "repetition"]


def params(**values) -> Train:
    return Train.model_validate(SHIPPED["train"] | values)


def record(number: int, messages: list | None = None, task: str = "qa") -> dict:
    chat = CHATS[number % len(CHATS)] if messages is None else messages
    return {"id": f"s:{number}", "source": "s", "origin": f"f:{number}", "task": task, "messages": chat}


def write_records(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("lora", {"lora": {"r": 4, "alpha": 8}}),
        ("prompt", {"ptuning": {"num_virtual_tokens": 4}}),
        ("freeze", {"freeze": {"layers": 1}}),
    ],
)
def test_the_curve_is_what_evaluate_measures_of_the_saved_adapter(llama_base, tmp_path, name, sections):
    """In float32, where the same operations give the same bits; and the model trains on as if nobody had asked."""
    chosen = method(name, **sections)
    base = load_model(llama_base, torch.float32)
    train = params(eval_metrics=MEASURED, eval_max_new_tokens=12, micro_batch_size=3, eval_fraction=0.5)
    records = [record(number) for number in range(5)]
    attention = base.config._attn_implementation
    asking = Answering(train, records, curve_metrics(MEASURED), llama_base, attention, torch.float32)
    collate = collator(base, packed=name != "prompt")
    model = prepare_model(base, chosen, False).train()
    perturb_trained(model, 3)
    batch = collate([(torch.arange(5, 12), torch.arange(5, 12), 7), (torch.arange(9, 13), torch.arange(9, 13), 7)])
    batch.pop("step_tokens")

    def state() -> list:
        tensors = [(key, one.data_ptr(), one.sum()) for key, one in model.named_parameters() if one.requires_grad]
        return [model(**batch)["loss"].item(), model.training, base.config._attn_implementation, tensors]

    before = state()
    measured = asking(model)
    answers = asking.answers(model)
    assert state() == before
    methods.save(model, chosen, tmp_path / "adapter")
    # By the stage `evaluate`, from disk.
    loaded = load_adapter(load_model(llama_base, torch.float32), tmp_path / "adapter")
    section = {"max_new_tokens": 12, "max_thinking_tokens": 12, "batch_size": 3, "dtype": "float32", "constrain": None}
    network = Model(loaded, load_tokenizer(llama_base), {})
    found = predict(network, records, Evaluate.model_validate(section), "evaluate").answers
    assert [answers[item].text for item in range(5)] == [one["prediction"] for one in found]
    figures = compare(prediction_rows(records, found, found))["tuned"]
    assert measured == {key: pytest.approx(figures[key]["value"], abs=2e-6) for key in MEASURED}
    assert measured["length_ratio"] > 0, "something was said"
    assert asking.report()["validation_answers"]["tokens"] == sum(one.tokens for one in answers.values())


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("lora", {"lora": {"r": 4, "alpha": 8, "variant": "dora", "modules_to_save": ["norm"]}}),
        ("freeze", {"freeze": {"layers": 1}}),
    ],
)
def test_in_bfloat16_each_parameter_has_the_dtype_that_loading_gives_it(llama_base, tmp_path, name, sections):
    chosen = method(name, **sections)
    base = load_model(llama_base, torch.bfloat16)
    model = prepare_model(base, chosen, False).train()
    perturb_trained(model, 3)
    methods.save(model, chosen, tmp_path / "adapter")
    with as_evaluated(model, base.config._attn_implementation, torch.bfloat16) as network:
        found = {key: one.dtype for key, one in network.named_parameters()}
    loaded = load_adapter(load_model(llama_base, torch.bfloat16), tmp_path / "adapter")
    assert found == {key: one.dtype for key, one in loaded.named_parameters()}
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}


def tokens_of(tmp_path: Path, numbers: list[int], weights: list[float]) -> Tokens:
    """A token file whose rows are of these records."""
    writer = TokenWriter(tmp_path / "tokens")
    for row, (number, weight) in enumerate(zip(numbers, weights, strict=True)):
        writer.add(Encoded([row + 5, 7], [-100, 7]), weight, number)
    writer.finish()
    return Tokens(tmp_path / "tokens")


def test_items_are_whole_records_that_nothing_is_trained_on_by_a_hash_of_their_ids(tmp_path):
    silent = [CHATS[0][0], CHATS[0][1] | {"learn": False}]
    records = [record(number) for number in range(8)] + [record(8, silent)]
    path = write_records(tmp_path / "train.jsonl", records)
    # Record 1 gave no row, 2 is trained on in part, and the last answer of 8 is not learnt.
    tokens = tokens_of(tmp_path, [0, 2, 2, 3, 4, 5, 6, 7, 8], [1, 1, 0, 0, 0, 0, 0, 0, 0])
    train = params(eval_metrics=["rouge_l"], eval_items=3)
    found = [one["id"] for one in validation_items(train, tokens, path)]
    assert len(found) == 3
    assert set(found) < {"s:3", "s:4", "s:5", "s:6", "s:7"}
    everything = [one["id"] for one in validation_items(params(eval_metrics=["rouge_l"]), tokens, path)]
    assert (len(everything), everything[:3]) == (5, found)
    # The seed, other rows and their order are nothing to it.
    more = tokens_of(tmp_path, [0, 9, 3, 4, 5, 6, 7], [1, 1, 0, 0, 0, 0, 0])
    write_records(path, [*records, record(9)])
    again = validation_items(params(eval_metrics=["rouge_l"], eval_items=3, seed=3), more, path)
    assert [one["id"] for one in again] == found
    write_records(path, records[:5])
    with pytest.raises(
        ValueError, match="holds 5 records, and the token file has rows of record 8: run `dvc repro tok"
    ):
        validation_items(train, more, path)


def test_items_are_of_the_rows_that_a_replay_validates_on(tmp_path):
    """A smaller part of the rows, of which others are held back."""
    writer = TokenWriter(tmp_path / "tokens")
    for row in range(40):
        writer.add(Encoded([row + 5, 7], [-100, 7]), replay=NEWEST if row >= 30 else row / 30)
    writer.finish()
    tokens = Tokens(tmp_path / "tokens")
    path = write_records(tmp_path / "train.jsonl", [record(number) for number in range(40)])
    train = params(eval_metrics=["rouge_l"], eval_fraction=0.25, replay=0.2, init="rev:main")
    _, held = split(tokens, train.eval_fraction, train.seed, train.replay)
    assert len(held) == 4
    assert {one["id"] for one in validation_items(train, tokens, path)} == {f"s:{row}" for row in held}


def test_metrics_are_of_the_items_tasks_and_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evaluation").mkdir()
    Path("evaluation/mine.py").write_text(
        "def first(prediction, reference, record):\n    return float(prediction[0] == reference[0])\n"
        "def rows_there(rows):\n    return len(rows)\n"
        "def step(prediction):\n    return 1\n"
        "def never(prediction):\n    return None\n"
        "never.higher_is_better = False\n",
        encoding="utf-8",
    )
    records = [record(number, task="label") for number in range(3)]
    rows = [right_row(one) for one in records]
    rows[0]["tuned"] = "别的"
    metrics = curve_metrics(["label_accuracy", "mine.py:first", "mine.py:rows_there"])
    third = {"label_accuracy": 66.666667, "first": 0.666667, "rows_there": 3.0}
    assert values(metrics, rows, records) == third
    with pytest.raises(ValueError, match=r"train.eval_metrics holds triples_f1, which no .* \(tasks label\)"):
        values(curve_metrics(["triples_f1"]), rows, records)
    with pytest.raises(ValueError, match="mine.py:step: step is a column of the curve already"):
        curve_metrics(["mine.py:step"])
    mixed = curve_metrics(["mine.py:never", "mine.py:rows_there"])
    assert points(mixed, rows, records, "rows_there") == {"rows_there": 3.0}
    with pytest.raises(ValueError, match="mine.py:never, which no validation item has a value of"):
        points(mixed, rows, records, "mine.py:never")
    never = params(eval_metrics=["mine.py:never"], best_by="never")
    assert best_by(never, curve_metrics(never.eval_metrics)) == BestBy("eval_never", False)
    assert best_by(params(), []) == BestBy("eval_loss", False)
    shape = params(eval_metrics=["length_ratio"], best_by="length_ratio")
    with pytest.raises(ValueError, match="train.best_by is length_ratio, expected loss, or a metric of which more or"):
        best_by(shape, curve_metrics(shape.eval_metrics))


def test_metrics_are_tried_with_empty_answers_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("evaluation").mkdir()
    Path("evaluation/tried.py").write_text(
        "def first(prediction): return ord(prediction[0])\n"
        "def rows_first(rows): return sum(ord(row['prediction'][0]) for row in rows)\n"
        "def said(prediction): return len(prediction) if prediction else None\n",
        encoding="utf-8",
    )
    records = [record(number, task="label") for number in range(3)]
    check_metrics(curve_metrics(["label_accuracy", "tried.py:said"]), records)
    for name in ("first", "rows_first"):
        with pytest.raises(ValueError, match=rf"{name} failed on .*IndexError.* \(tried with an empty answer\)"):
            check_metrics(curve_metrics([f"tried.py:{name}"]), records)


def test_the_best_step_is_the_first_of_equal_ones_in_the_metrics_direction():
    history = [{"step": 2, "eval_loss": 1.0, "eval_f": 5.0}, {"step": 3, "loss": 0.1}]
    history += [{"step": 4, "eval_loss": 0.5, "eval_f": 7.0}, {"step": 6, "eval_loss": 0.75, "eval_f": 7.0}]
    assert best_step(history, BestBy("eval_loss", False)) == {"best_step": 4, "validation_loss": 0.5}
    assert best_step(history, BestBy("eval_f", True)) == {"best_step": 4, "validation_f": 7.0}
    assert best_step(history, BestBy("eval_f", False)) == {"best_step": 2, "validation_f": 5.0}
    assert best_step(history, None) == best_step(history[1:2], BestBy("eval_f", True)) == {}


def test_the_cost_is_said_before():
    found = cost(params(save_steps=50, eval_max_new_tokens=64), steps=146, items=120)
    assert str(found) == "3 validations answer 50 items each, of 64 tokens at most: up to 9,600 tokens"
    assert cost(params(save_steps=50), steps=100, items=7)[:2] == (2, 7)


def in_processes(monkeypatch, work, count: int = 2) -> list:
    """What threads that take themselves for processes of one run give, or the error that each ends with; by rank."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    mine, box, found = threading.local(), {}, [None] * count

    def broadcast(values: list, src: int) -> None:
        if mine.rank == src:
            box["values"] = list(values)
        wait_for_all("broadcast")
        values[:] = box["values"]

    monkeypatch.setattr(processes, "rank", lambda: mine.rank)
    monkeypatch.setattr(processes, "world", lambda: count)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)

    def begin(rank: int) -> None:
        mine.rank = rank
        try:
            found[rank] = work(rank)
        except ValueError as error:
            found[rank] = error

    threads = [threading.Thread(target=begin, args=[rank], daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return found


def test_a_process_waits_for_another_however_long_it_answers(monkeypatch):
    came = []

    def work(rank: int) -> bool:
        if rank == 1:
            time.sleep(0.3)
        came.append(rank)
        wait_for_all("answered 0")
        # Another point is another wait.
        wait_for_all("answered 1")
        return sorted(came) == [0, 1]

    assert in_processes(monkeypatch, work) == [True, True]


def test_what_the_first_process_finds_or_fails_on_is_all_the_others(monkeypatch):
    def measure(rank: int) -> dict:
        return by_first(lambda: {"said": 1 / (1 - rank)}, "measured 0")

    def fail(rank: int) -> None:
        by_first(lambda: check_metrics(curve_metrics(["label_accuracy"]), [record(0)]), "metrics are tried")

    with monkeypatch.context() as patched:
        assert in_processes(patched, measure, 3) == [{"said": 1.0}] * 3
    with monkeypatch.context() as patched:
        errors = in_processes(patched, fail)
    assert [type(one) for one in errors] == [ValueError] * 2
    assert {str(one) for one in errors} == {
        "train.eval_metrics holds label_accuracy, which no validation item has a value of (tasks qa)"
    }
    # One process alone raises its own error.
    with pytest.raises(ValueError, match="which no validation item has a value of"):
        fail(0)
