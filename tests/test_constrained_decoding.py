"""Constrained decoding: whatever a model would rather say, answers parse and hold only spans of the text and known classes."""

import json
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import stages.predict_base
from tests.helpers.methods import method
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import MARKERS
from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.constraints import allowed_classes, generation_record
from tuneline.evaluate.predict import Model, predict
from tuneline.formats.extraction import ENDS, TYPED, named_classes, read_classes
from tuneline.formats.records import normalise
from tuneline.models.chat_format import load_prompter
from tuneline.models.constrained_decoding import Constrainer, Constraint
from tuneline.models.loading import load_model, load_tokenizer
from tuneline.scoring.extraction import items
from tuneline.train import methods

RELATIONS = ["持股", "被持股", "收购"]
TYPES = ["受害人", "被盗物品"]
LABELS = ["呼吸内科", "骨科", '"引号"\\']
TEXTS = [
    "为打消市场顾虑,工行两位洋股东——美国运通和安联集团昨晚做出承诺。",
    '引号"、反斜线\\、下划线_、分号;与换行\n都在里面，还有 spaces 和😀。',
    "短",
]
CONSTRAINTS = [
    *(Constraint("triples", text, RELATIONS) for text in TEXTS),
    *(Constraint("entities", text, TYPES) for text in TEXTS),
    Constraint("label", "", LABELS),
]
PARAMS = {"max_new_tokens": 24, "max_thinking_tokens": 8, "batch_size": 3, "dtype": "float32"}


def complaints(said: str, constraint: Constraint) -> list[str]:
    """What of an answer is no item, no span of the text, or of another class."""
    task, text, classes = constraint
    if task == "label":
        return [] if said in classes else [said]
    wrong = []
    for piece in ENDS.split(said) if said else []:
        if task == "triples":
            parts = piece.split("_")
            named, spans = parts[1:2], parts[::2]
            sound = len(parts) == 3
        else:
            typed = TYPED.fullmatch(piece)
            named, spans = ([typed.group(1)], typed.group(2).split("、")) if typed else ([], [])
            sound = typed is not None
        if not (sound and set(named) <= set(classes) and all(span.strip() and span in text for span in spans)):
            wrong.append(piece)
    return wrong


def test_the_check_of_answers_sees_what_is_wrong():
    triples, entities, label = CONSTRAINTS[0], CONSTRAINTS[3], CONSTRAINTS[-1]
    for said in ("工行_持股", "工行_持股_", "工行_合作_安联", "建行_持股_安联", "工行持股安联", "工行_持股_安联\n"):
        assert complaints(said, triples), said
    assert complaints("工行_持股_安联;安联集团_被持股_工行", triples) == complaints("", triples) == []
    assert complaints("受害人:建行", entities) and complaints("人:工行", entities) and complaints("工行", entities)
    assert complaints("受害人:工行、安联集团\n被盗物品：洋", entities) == []
    assert complaints("外科", label) == ["外科"] and not complaints("骨科", label)


@pytest.mark.parametrize("family", MARKERS)
def test_whatever_a_model_prefers_the_answer_can_be_read(family, tokenizers):
    """Scores drawn by lot, over more tokens than the tokenizer has: a head is often padded."""
    tokenizer = tokenizers[family]
    prompter = load_prompter(tokenizer)
    constrainer = Constrainer(tokenizer, prompter)
    ended = 0
    for number, constraint in enumerate(CONSTRAINTS * 3):
        generator = torch.Generator().manual_seed(number)
        processor, ids = constrainer.processor([constraint]), [9, 9]
        while len(ids) < 80 and ids[-1] not in prompter.stop_ids:
            scores = 4 * torch.randn((1, len(tokenizer) + 30), generator=generator)
            ids.append(int(processor(torch.tensor([ids]), scores).argmax()))
        answer = ids[2:]
        whole = answer[-1] in prompter.stop_ids
        kept = answer[:-1] if whole else answer[: constrainer.complete(constraint, answer)]
        said = tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert complaints(said, constraint) == [] or (constraint.task == "label" and not whole), (said, constraint)
        ended += whole
    assert ended > len(CONSTRAINTS)


def test_sentencepiece_with_bytes_and_a_mark_before_the_first_word(pieces):
    for rule, (_, _, tokenizer, _) in pieces.items():
        constrainer = Constrainer(tokenizer, load_prompter(tokenizer))
        nothing, lead = json.loads(constrainer.nothing), json.loads(constrainer.lead)
        assert nothing.strip() == "" and lead.startswith(nothing), "the model says its role's line end itself"
        assert lead != nothing, "the mark of a first word"
        constraint = CONSTRAINTS[0]
        allowed = ["", "工行_被持股_美国运通", "美国运通_持股_工行"]
        refused = ["工行_合作_美国运通", "建行_持股_工行", "工行_持股_", "工行"]
        if rule == "identity":
            # As published; others make a space of a line end before it is encoded.
            allowed.append("\n".join(allowed[1:]))
        assert [answer for answer in allowed if not constrainer.allows(constraint, answer)] == []
        assert [answer for answer in refused if constrainer.allows(constraint, answer)] == []


def merged_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs that are merged across every border: one token holds the end of a span and a relation's beginning."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = ["行_持", "股_安", "联\n", "行_收", "安联集团_"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=MARKERS["gemma"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for text in texts for _ in range(20)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


def test_tokens_that_cross_the_borders_of_spans_are_allowed_where_they_fit():
    tokenizer = merged_tokenizer()
    prompter = load_prompter(tokenizer)
    constrainer = Constrainer(tokenizer, prompter)
    crossing = {text: prompter.text(text) for text in ("行_持", "股_安", "行_收", "联\n")}
    assert all(len(ids) == 1 for ids in crossing.values())
    constraint = Constraint("triples", "工行的股东是安联", ["持股"])
    ids = [*prompter.text("工"), *crossing["行_持"], *crossing["股_安"]]
    assert constrainer.complete(constraint, ids) == len(ids)
    processor = constrainer.processor([constraint])
    begun = prompter.text("工")
    scores = torch.zeros((1, len(tokenizer)))
    prompt = [9]
    for place in range(len(begun) + 1):
        allowed = processor(torch.tensor([prompt + begun[:place]]), scores)[0] == 0
    assert bool(allowed[crossing["行_持"][0]]), "工行_持…"
    assert not bool(allowed[crossing["行_收"][0]]), "收 begins no relation"
    assert not bool(allowed[crossing["股_安"][0]]), "工股 is no span"
    # Half a character ends no answer.
    cut = [*ids, prompter.text("联")[0]] if len(prompter.text("联")) > 1 else ids
    assert constrainer.complete(constraint, cut) == len(ids)


@pytest.fixture(scope="module")
def tiny(canonical_base):
    return Model(load_model(canonical_base, torch.float32), load_tokenizer(canonical_base), {})


def record(number: int, task: str, text: str, answer: str) -> dict:
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return {"id": f"s:{number}", "source": "s", "origin": "f", "task": task, "messages": turns}


RECORDS = [
    record(0, "triples", TEXTS[0], "工行_被持股_美国运通\n美国运通_持股_工行"),
    record(1, "triples", TEXTS[1], ""),
    record(2, "entities", TEXTS[0], "受害人:工行"),
    record(3, "label", "崴了脚，外侧肿得厉害。", "骨科"),
    record(4, "qa", "感冒怎么办？", "多休息。"),
    record(5, "triples", TEXTS[2], "工行_持股_短"),
]
CLASSES = {"triples": RELATIONS, "entities": TYPES, "label": LABELS}


def test_a_batch_says_what_single_prompts_say_and_a_free_row_what_it_says_without(tiny):
    params = Evaluate(**PARAMS, constrain=CLASSES)
    together, _ = predict(tiny, RECORDS, params, "test", CLASSES)
    alone = [predict(tiny, [one], params, "test", CLASSES).answers[0] for one in RECORDS]
    free = predict(tiny, RECORDS, params, "test").answers
    said = [answer["prediction"] for answer in together]
    assert said == [answer["prediction"] for answer in alone]
    assert together[4] == free[4]
    assert said != [answer["prediction"] for answer in free]
    for one, text in zip(RECORDS, said, strict=True):
        if one["task"] != "qa":
            assert complaints(text, Constraint(one["task"], one["messages"][0]["content"], CLASSES[one["task"]])) == []
    assert any(said)
    assert [answer["reachable"] for answer in together] == [True] * 5 + [False], "工行 is no span of 短"
    # What is measured of references is measured without constraint.
    assert [answer["nll"] for answer in together] == [answer["nll"] for answer in free]


def test_of_an_answer_that_is_cut_whole_items_remain(tiny):
    for limit in range(1, 24, 4):
        params = Evaluate(**PARAMS | {"max_new_tokens": limit}, constrain=CLASSES)
        ((answer,), _) = predict(tiny, RECORDS[:1], params, "test", CLASSES)
        assert complaints(answer["prediction"], Constraint("triples", TEXTS[0], RELATIONS)) == []


def test_classes_of_the_training_set_are_those_that_its_answers_name(tmp_path):
    assert named_classes("triples", "工行_被持股_运通\n运通_持股_工行；a_b；c_d_e_f\n") == {"被持股", "持股"}
    assert named_classes("entities", "受害人:甲、乙;被盗物品：手机;没有") == {"受害人", "被盗物品"}
    assert named_classes("label", " 骨科 ") == {"骨科"} and named_classes("label", "") == set()
    several = record(9, "label", "?", "儿科") | {"references": ["儿科", "内科"]}
    sets = record(7, "labels", "?", "儿科、眼科")
    free = record(8, "qa", '他说："task":"label"', "工行_持股_甲")
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in (*RECORDS, several, sets, free)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read_classes(path) == {
        "triples": ["持股", "被持股"],
        "entities": ["受害人"],
        "label": ["儿科", "内科", "骨科"],
    }


@pytest.mark.parametrize(
    ("constrain", "message"),
    [
        ({"triples": []}, "at least one name"),
        ({}, "null, training_set, or names by task"),
        ({"qa": ["a"]}, "null, training_set, or names by task"),
        ("spans", "null, training_set, or names by task"),
        ({"triples": [1]}, "in quotes where it could be a number"),
        ({"triples": [" "]}, "at least one name"),
    ],
)
def test_a_constraint_that_leaves_nothing_to_say_is_refused_with_its_key(workspace, constrain, message):
    from tuneline.runtime.params import load

    workspace(evaluate={"constrain": constrain})
    with pytest.raises(ValueError, match=f"evaluate.constrain is .*{re.escape(message)}"):
        load(Evaluate)


def test_constraints_that_fit_no_item_or_no_training_set_are_refused(tmp_path, tiny):
    path = tmp_path / "classes.json"
    from_training = Evaluate(**PARAMS, constrain="training_set")
    with pytest.raises(ValueError, match=r"classes.json is missing: run `dvc repro convert`"):
        allowed_classes(from_training, path, RECORDS)
    path.write_text(json.dumps({"triples": RELATIONS}))
    assert allowed_classes(Evaluate(**PARAMS, constrain=None), path, RECORDS) == {}
    assert allowed_classes(from_training, path, RECORDS[:2]) == {"triples": RELATIONS}
    assert allowed_classes(Evaluate(**PARAMS, constrain=CLASSES), path, RECORDS[:2]) == {"triples": RELATIONS}
    with pytest.raises(ValueError, match="no answer of the training set names a class of entities, label: list them"):
        allowed_classes(from_training, path, RECORDS)
    with pytest.raises(ValueError, match="no held-out item is of such a task, expected one of triples: set it to null"):
        allowed_classes(from_training, path, RECORDS[4:5])
    with pytest.raises(ValueError, match="evaluate.constrain holds 'a_b' for triples"):
        predict(tiny, RECORDS[:1], from_training, "test", {"triples": ["a_b"]})
    with pytest.raises(ValueError, match="is empty for triples, expected at least one name"):
        Constrainer(tiny.tokenizer, load_prompter(tiny.tokenizer)).processor([Constraint("triples", "甲乙", [])])


def test_a_token_that_was_not_allowed_ends_the_generation(tiny):
    processor = Constrainer(tiny.tokenizer, load_prompter(tiny.tokenizer)).processor(
        [Constraint("label", "", ["骨科"])]
    )
    scores = torch.zeros((1, len(tiny.tokenizer)))
    processor(torch.tensor([[9]]), scores)
    wrong = load_prompter(tiny.tokenizer).text("!")
    with pytest.raises(ValueError, match="a constrained answer can't go on: .*doesn't satisfy the grammar"):
        processor(torch.tensor([[9, *wrong]]), scores)


def test_results_say_how_answers_were_made():
    params = Evaluate(**PARAMS, constrain="training_set")
    assert generation_record(params, {"triples": RELATIONS}, [{"reachable": False}, {"reachable": True}]) == {
        "decoding": "greedy", "max_new_tokens": 24, "constrain": {"triples": RELATIONS}, "unreachable_references": 1,
    }  # fmt: skip
    assert generation_record(params, {}, [{"reachable": True}]) == {
        "decoding": "greedy",
        "max_new_tokens": 24,
        "constrain": None,
    }


def test_the_stage_constrains_the_base_too(workspace, canonical_base):
    folder = workspace(evaluate=PARAMS | {"constrain": "training_set"})
    (folder / "models").mkdir()
    (folder / "models/base").symlink_to(canonical_base)
    processed = folder / "data/processed"
    processed.mkdir(parents=True)
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in RECORDS[:2])
    (processed / "heldout.jsonl").write_text(lines, encoding="utf-8")
    (processed / "classes.json").write_text(json.dumps({"triples": RELATIONS}))
    run_main(stages.predict_base)
    answers = [json.loads(line) for line in Path("data/processed/base_answers.jsonl").read_text().splitlines()]
    for one, answer in zip(RECORDS[:2], answers, strict=True):
        text = one["messages"][0]["content"]
        assert complaints(answer["prediction"], Constraint("triples", text, RELATIONS)) == []
        assert items(answer["prediction"]) == {normalise(part) for part in ENDS.split(answer["prediction"]) if part}


@pytest.mark.parametrize("name", ["prefix", "p_tuning", "prompt"])
def test_virtual_tokens_before_the_prompt_are_no_part_of_the_answer(canonical_base, name):
    chosen = method(name, ptuning={"num_virtual_tokens": 6, "encoder_hidden_size": 16})
    network = methods.prepare(load_model(canonical_base, torch.float32), chosen).eval()
    model = Model(network, load_tokenizer(canonical_base), {})
    answers, _ = predict(model, RECORDS[:4], Evaluate(**PARAMS, constrain=CLASSES), "test", CLASSES)
    assert any(answer["prediction"] for answer in answers)
    for one, answer in zip(RECORDS, answers, strict=False):
        text = one["messages"][0]["content"]
        assert complaints(answer["prediction"], Constraint(one["task"], text, CLASSES[one["task"]])) == []
