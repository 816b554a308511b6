"""What is marked as bad is not learnt: rows, turns and the worse side of pairs, however public tools write it."""

import pytest

from tests.helpers.reading import lines, read, section, write
from tuneline.data.accounting import check_rejects
from tuneline.models.chat_format import load_prompter

FAMILIES = ("gemma", "glm4")
"""One whose turns have an end, and one whose do not."""
GOOD, BAD = "多休息，多喝水。", "随便吃点药。"


def unmasked(messages):
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def pair(answer: str, **more):
    return {"instruction": f"感冒怎么办{len(more)}{answer[0]}", "input": "", "output": answer, **more}


def chat(*turns, **more):
    return {"messages": [{"role": role, "content": content, **mark} for role, content, mark in turns], **more}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("kto_tag", True, False), ("label", True, False), ("label", "good", "bad"), ("label", 1, 0),
        ("label", "True", "False"),        ("label", "好", "差"), ("is_correct", 1, 0), ("quality", "good", "bad"),
        ("is_bad", False, True),
        ("rejected", False, True),
    ],
)  # fmt: skip
def test_a_row_that_is_marked_as_bad_is_not_learnt(tmp_path, name, good, bad):
    dialogue = [chat(("user", f"问{n}", {}), ("assistant", answer, {}), **{name: mark})
                for n, (answer, mark) in enumerate([(GOOD, good), (BAD, bad)] * 2)]  # fmt: skip
    for rows in ([pair(GOOD, **{name: good}), pair(BAD, **{name: bad})] * 2, dialogue):
        result = read(write(tmp_path / "a.jsonl", lines(*rows)))
        assert result.reasons == ["marked_bad"] * 2
        assert [record["messages"][-1]["content"] for record in result.records] == [GOOD] * 2
        assert (result.records[0]["task"], result.counts.unused) == ("qa", {})
        # Its own marks are no fault of the file.
        check_rejects(section([{"path": "a.jsonl"}]), [result.counts])


def test_a_file_of_bad_rows_alone_is_an_error(tmp_path):
    result = read(write(tmp_path / "a.jsonl", lines(pair(BAD, kto_tag=False))))
    with pytest.raises(ValueError, match="all 1 items of 'a.jsonl' are marked as bad"):
        check_rejects(section([{"path": "a.jsonl"}]), [result.counts])


def test_a_label_that_is_the_answer_or_no_mark_is_none(tmp_path):
    classes = [{"text": "很好", "label": "good"}, {"text": "差", "label": "bad"}]
    assert [r["task"] for r in read(write(tmp_path / "a.jsonl", lines(*classes))).records] == ["label", "label"]
    departments = [pair(GOOD, label="内科"), pair(BAD, label="0")]
    result = read(write(tmp_path / "b.jsonl", lines(*departments)))
    assert (result.rejects, result.counts.unused) == ([], {"label": 2})
    assert len(read(write(tmp_path / "c.jsonl", lines(pair(BAD, label=False))), ignore=["label"]).records) == 1


@pytest.mark.parametrize(
    "mark",
    [{"loss": False}, {"loss": 0}, {"loss_weight": 0.0}, {"loss_scale": 0}, {"weight": 0}, {"train": False},
     {"training": False},     {"masked": True}, {"learn": False}, {"trainable": "false"}],
    ids=lambda mark: next(iter(mark)),
)  # fmt: skip
@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_that_is_not_to_be_learnt_is_in_the_prompt_and_masked(tmp_path, tokenizers, mark, family):
    turns = [("user", "一", {}), ("assistant", BAD, mark), ("user", "二", {}), ("assistant", GOOD, {})]
    result = read(write(tmp_path / "a.jsonl", lines(chat(*turns))))
    (record,) = result.records
    assert [message.get("learn") for message in record["messages"]] == [None, False, None, None]
    assert (result.counts.noticed, result.counts.unused) == ({"masked_answers": 1}, {})
    prompter = load_prompter(tokenizers[family])
    row, everything = (
        prompter.training_row(messages) for messages in (record["messages"], unmasked(record["messages"]))
    )
    assert row.input_ids == everything.input_ids
    # The marked answer is the first of two: what is left is what the last one alone would have.
    assert row.labels == prompter.training_row(unmasked(record["messages"]), "last_answer").labels != everything.labels


def test_an_end_that_is_not_learnt_is_left_out_and_nothing_to_learn_is_rejected(tmp_path):
    turns = [("user", "一", {}), ("assistant", GOOD, {}), ("user", "二", {}), ("assistant", BAD, {"loss": False})]
    result = read(write(tmp_path / "a.jsonl", lines(chat(*turns), chat(*turns[2:]))))
    assert (result.contents(), result.reasons) == (["一", GOOD], ["marked_bad"])
    assert result.counts.repairs == {"dropped_masked_end": 1}


def test_neighbours_of_which_one_is_masked_are_not_learnt(tmp_path):
    turns = [
        ("user", "一", {}),
        ("assistant", BAD, {"loss": False}),
        ("assistant", GOOD, {}),
        ("user", "二", {}),
        ("assistant", GOOD, {}),
    ]
    (record,) = read(write(tmp_path / "a.jsonl", lines(chat(*turns)))).records
    assert [message.get("learn") for message in record["messages"]] == [None, False, None, None]


def test_a_weight_between_is_counted_as_unused(tmp_path):
    turns = [("user", "一", {}), ("assistant", GOOD, {"weight": 0.5})]
    assert read(write(tmp_path / "a.jsonl", lines(chat(*turns)))).counts.unused == {"messages.weight": 1}


USER, ASSISTANT = {"role": "user", "content": "感冒怎么办"}, {"role": "assistant", "content": GOOD}
WORSE = {"role": "assistant", "content": BAD}
PAIRS = {
    "alpaca": {"instruction": "感冒怎么办", "input": "", "chosen": GOOD, "rejected": BAD},
    "swift": {"messages": [USER, ASSISTANT], "rejected_response": BAD},
    "swift messages": {"messages": [USER, ASSISTANT], "rejected_messages": [USER, WORSE]},
    "columns": {"question": "感冒怎么办", "response_chosen": GOOD, "response_rejected": BAD},
    "trl": {"prompt": "感冒怎么办", "chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]},
    "trl explicit": {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [WORSE]},
    "trl prompt in words": {"prompt": "感冒怎么办", "chosen": [ASSISTANT], "rejected": [WORSE]},
    "trl implicit": {"chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]},
    "sharegpt": {"conversations": [{"from": "human", "value": "感冒怎么办"}], "chosen": {"from": "gpt", "value": GOOD},
                 "rejected": {"from": "gpt", "value": BAD}},
    "openai": {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [WORSE]},
    "hh": {"chosen": f"\n\nHuman: 感冒怎么办\n\nAssistant: {GOOD}", "rejected": f"\n\nHuman: 感冒怎么办\n\nAssistant: {BAD}"},
    "text after messages": {"messages": [USER], "chosen": GOOD, "rejected": BAD},
    "two outputs": {"instruction": "感冒怎么办", "input": "", "output": [GOOD, BAD]},
    "good and bad": {"question": "感冒怎么办", "good_answer": GOOD, "bad_answer": BAD},
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_preference_pairs_are_refused_or_read_as_their_good_side(tmp_path, name):
    path = write(tmp_path / "a.jsonl", lines(*[PAIRS[name]] * 4))
    refused = read(path)
    assert refused.records == []
    with pytest.raises(ValueError, match="`preference: chosen` under this source in params.yaml"):
        check_rejects(section([{"path": "a.jsonl"}]), [refused.counts])
    source = {"path": "a.jsonl", "preference": "chosen"}
    result = read(path, preference="chosen")
    assert [result.contents(n) for n in range(4)] == [["感冒怎么办", GOOD]] * 4
    assert all("references" not in record for record in result.records)
    check_rejects(section([source]), [result.counts])


def test_two_right_outputs_are_references_when_the_source_says_so(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(*[PAIRS["two outputs"]] * 4))
    assert read(path, columns={"answer": "output"}).records[0]["references"] == [GOOD, BAD]


FIELDS = [
    ({"images": ["a.jpg"]}, r"images \(1 items\); `ignore: \[images\]`"),
    ({"Complex_CoT": ["先想"]}, r"Complex_CoT .*`ignore: \[Complex_CoT\]`"),
    ({"think": ["先想"]}, r"think .*`ignore: \[think\]`"),
    (
        {"references": ["法条"]},
        r"references .*`use: \[references\]`.* puts it before the question, `ignore: \[references\]`",
    ),
    ({"prompt": "你是医生"}, r"prompt .*`use: \[prompt\]`"),
]


@pytest.mark.parametrize(("field", "message"), FIELDS, ids=lambda value: str(value)[:20])
def test_a_field_that_the_task_rests_on_is_settled_in_params(tmp_path, field, message):
    (name,) = field
    path = write(tmp_path / "a.jsonl", lines({"question": "感冒怎么办", "answer": GOOD, **field}))
    with pytest.raises(ValueError, match=message):
        check_rejects(section([{"path": "a.jsonl"}]), [read(path).counts])
    ignored = read(path, ignore=[name])
    check_rejects(section([{"path": "a.jsonl", "ignore": [name]}]), [ignored.counts])
    assert ignored.counts.unused == {name: 1}
    if "use" in message:
        used = read(path, use=[name])
        check_rejects(section([{"path": "a.jsonl", "use": [name]}]), [used.counts])
        assert (used.counts.unused, used.contents()[0].endswith("\n感冒怎么办")) == ({}, True)


def test_thoughts_are_read_or_ignored_and_those_of_a_user_are_settled_in_params(tmp_path):
    thought = {"reasoning_content": "想"}
    path = write(tmp_path / "b.jsonl", lines(chat(("user", "一", {}), ("assistant", GOOD, thought))))
    for ignore in ([], ["reasoning_content"], ["messages.reasoning_content"]):
        result = read(path, ignore=ignore)
        check_rejects(section([{"path": "b.jsonl", "ignore": ignore}]), [result.counts])
        assert result.records[0]["messages"][1].get("reasoning") == (None if ignore else "想")
        assert result.counts.unused == ({"messages.reasoning_content": 1} if ignore else {})
    turns = [("user", "一", thought), ("assistant", GOOD, thought)]
    path = write(tmp_path / "a.jsonl", lines(chat(*turns)))
    with pytest.raises(ValueError, match=r"messages.reasoning_content .*`ignore: \[reasoning_content\]`"):
        check_rejects(section([{"path": "a.jsonl"}]), [read(path).counts])
    source = {"path": "a.jsonl", "ignore": ["reasoning_content"]}
    check_rejects(section([source]), [read(path, ignore=["reasoning_content"]).counts])


def test_what_an_answer_rests_on_is_before_the_question(tmp_path):
    row = {"query": "能退吗", "laws": ["第一条", "第二条"], "text": "合同全文", "response": GOOD}
    path = write(tmp_path / "a.jsonl", lines(row))
    result = read(path)
    assert result.contents()[0] == "第一条\n第二条\n合同全文\n能退吗"
    assert result.compared == [("第一条 第二条 合同全文", "能退吗")]
    assert read(path, ignore=["laws"]).contents()[0] == "合同全文\n能退吗"
    assert read(path, use=["laws"]).counts.unused == {"text": 1}
    assert read(path, template="{laws}。{question}").contents()[0] == "第一条\n第二条。合同全文\n能退吗"
    rendered = {
        "instruction": "能退吗",
        "input": "",
        "output": GOOD,
        "text": f"### Instruction: 能退吗 ### Response: {GOOD}",
    }
    result = read(write(tmp_path / "b.jsonl", lines(rendered)))
    assert (result.contents(), result.counts.unused) == (["能退吗", GOOD], {"text": 1})


def test_neither_marks_nor_excluded_ids_count_towards_the_reject_rate(tmp_path):
    rows = [pair(f"{n}次。{GOOD}", kto_tag=n < 4) for n in range(10)]
    path = write(tmp_path / "a.jsonl", lines(*rows, {"instruction": "问", "output": ""}))
    ids = [record["id"] for record in read(path).records[:2]]
    result = read(path, {"exclude": ids})
    assert result.counts.reasons == {"marked_bad": 6, "excluded": 2, "empty_answer": 1}
    # One of the three that are left.
    check_rejects(section([{"path": "a.jsonl"}], max_reject_rate=0.34), [result.counts])
    with pytest.raises(ValueError, match=r"1 of 3 items of 'a.jsonl' were rejected"):
        check_rejects(section([{"path": "a.jsonl"}], max_reject_rate=0.3), [result.counts])


def test_what_is_excluded_is_no_field_that_nothing_reads(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(pair(GOOD), pair(GOOD, images=["a.png"])))
    (picture,) = [record["id"] for record in read(path).records if record["origin"] == "a.jsonl:2"]
    check_rejects(section([{"path": "a.jsonl"}]), [read(path, {"exclude": [picture]}).counts])
    with pytest.raises(ValueError, match="no reader uses: images"):
        check_rejects(section([{"path": "a.jsonl"}]), [read(path).counts])
