"""Which turn of a held-out dialogue is scored, and what an item is cut to."""

import json
from pathlib import Path

import pytest

import stages.convert
from tests.helpers.reading import lines, write
from tests.helpers.stages import run_main
from tuneline.data.turns.scored_turn import asking_exchanges, asks, compared_question, scored_records


def dialogue(*texts: str) -> list[dict]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("谢谢医生", "不客气"),
        ("好的，谢谢医生的建议。我会注意饮食，按时复查。", "祝您早日康复！"),
        ("明白了", "好的，有问题随时联系。"),
        ("好的，我会试试的。", "加油！"),
        ("再见，祝您工作顺利！", "再见！"),
        ("好的，我会告诉我妹妹注意。谢谢医生！", "不客气"),
        ("Thanks, that helps a lot!", "You're welcome!"),
        ("谢谢，如果有什么问题，我会再来找你的。", "随时欢迎。"),
    ],
)
def test_courtesies_ask_nothing(question, answer):
    assert not asks(question, answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("好的，谢谢医生。还需要注意什么吗？", "注意休息。"),
        ("谢谢你的建议。不过，这个梦让我心里有些害怕。", "这是正常的。"),
        ("男，6岁了。", "可以矫正。"),
        ("是的，它每天都会发作。", "可能是慢性荨麻疹。"),
        ("好的，写一首关于春天的诗", "春天来了"),
        ("继续", "接着说"),
        ("Thanks. How long should I take it?", "A week."),
        ("没有发烧，也没有咳嗽。", "那就不用担心。"),
    ],
)
def test_questions_and_statements_ask(question, answer):
    assert asks(question, answer)


def test_a_single_exchange_asks_whatever_it_says():
    assert asking_exchanges(dialogue("谢谢", "不客气")) == [0]
    assert asking_exchanges(dialogue("头疼，谢谢医生", "多久了？", "谢谢", "不客气")) == [0]


def test_an_item_ends_with_its_scored_answer():
    messages = dialogue("发烧怎么办", "降温。", "要去医院吗", "看情况。", "谢谢", "不客气")
    record = {"id": "s:1", "messages": [{"role": "system", "content": "医生"}, *messages], "references": ["a", "b"]}
    (cut,) = scored_records(record, "last_question")
    assert cut == {"id": "s:1#2", "messages": record["messages"][:5]}
    assert scored_records(record, "last") == [record]
    assert [item["id"] for item in scored_records(record, "all", 9)] == ["s:1#1", "s:1#2"]
    assert [item["id"] for item in scored_records(record, "all", 1)] == ["s:1#1"]


@pytest.mark.parametrize(("turns", "dialogues"), [("last_question", 10), ("last", 10), ("all", 5)])
def test_the_heldout_set_has_as_many_answers_as_asked_for(workspace, turns, dialogues):
    topics = [f"{chr(0x4E00 + 37 * n) * 3}第{n}种情况应该怎么处理" for n in range(30)]
    rows = [
        dialogue(topic, f"办法{n}。", f"{topic}要多少钱", f"{n}元。", "谢谢医生", "不客气")
        for n, topic in enumerate(topics)
    ]
    rows.append(dialogue("好的", "嗯。", "谢谢", "不客气"))
    write(Path("data/raw/a.jsonl"), lines(*({"conversations": row} for row in rows)))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 10, "heldout_turns": turns, "leak_policy": "keep"})
    run_main(stages.convert)
    heldout = [json.loads(line) for line in Path("data/processed/heldout.jsonl").read_text().splitlines()]
    counts = json.loads(Path("metrics/convert_details.json").read_text())["sources"]["a"]
    assert len({record["id"] for record in heldout}) == len(heldout) == counts["scored"] == 10
    assert counts["heldout"] == dialogues
    assert counts["nothing_asked"] == 1
    assert counts["scored_earlier"] == (0 if turns == "last" else dialogues)
    thanked = [record for record in heldout if record["messages"][-1]["content"] == "不客气"]
    assert len(thanked) == (10 if turns == "last" else 0)
    trained = [json.loads(line) for line in Path("data/processed/train.jsonl").read_text().splitlines()]
    assert all(len(record["messages"]) in (4, 6) for record in trained), "training keeps whole dialogues"
    assert not {r["id"].partition("#")[0] for r in heldout} & {r["id"] for r in trained}


def test_an_answer_that_is_not_to_be_learnt_is_not_scored():
    messages = dialogue("感冒怎么办", "休息。", "要不要吃药", "随便吃。", "谢谢医生", "不客气")
    messages[3]["learn"] = False
    assert asking_exchanges(messages) == [0]
    assert compared_question(messages) == "\n".join(messages[n]["content"] for n in (0, 2, 4)), (
        "four characters are short"
    )
    record = {"id": "s:1", "messages": messages}
    assert scored_records(record, "last_question") == [{"id": "s:1#1", "messages": messages[:2]}]
    assert scored_records(record, "all", 9) == [{"id": "s:1#1", "messages": messages[:2]}]
    later = [*messages[:4], *dialogue("那么多久能好", "一周。")]
    assert scored_records({"id": "s:2", "messages": later}, "last_question") == [{"id": "s:2", "messages": later}]
