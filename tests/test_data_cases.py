"""Small raw files of every situation that public bug reports tell of, one folder each, and what convert makes of them.

The files are read from $TUNELINE_SAMPLES/cases/data; tests/test_shapes.py covers the same ground with files of its own. A new
case is a line of CASES, or of REFUSED.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.helpers.reading import Read, read, section
from tuneline.data.accounting import check_rejects


class Case(NamedTuple):
    folder: str
    check: Callable[[Read], bool]
    options: Mapping[str, Any] = MappingProxyType({})
    """Of the source."""


def whole(items: int) -> Callable[[Read], bool]:
    """Every item is a question and its answer, of one kind of task."""
    return lambda read: len(read.records) == items and {read.roles(n)[-2:] for n in range(items)} == {"ua"}


def asked(beginning: str, *more: str) -> Callable[[Read], bool]:
    """The first question begins so, and holds the other texts, and nothing is rejected."""

    def check(read: Read) -> bool:
        question = next(message for message in read.records[0]["messages"] if message["role"] == "user")["content"]
        return not read.rejects and question.startswith(beginning) and all(text in question for text in more)

    return check


def told(**counts: dict[str, int]) -> Callable[[Read], bool]:
    """Counts of the source, such as repairs={"missing_value": 8}."""
    return lambda read: all(dict(getattr(read.counts, name)) == wanted for name, wanted in counts.items())


def answers(*wanted: str, task: str) -> Callable[[Read], bool]:
    return lambda read: ({r["task"] for r in read.records} == {task}
                         and [r["messages"][-1]["content"] for r in read.records][: len(wanted)] == list(wanted))  # fmt: skip


def both(*checks: Callable[[Read], bool]) -> Callable[[Read], bool]:
    return lambda read: all(check(read) for check in checks)


def masked(read: Read) -> bool:
    """The marked turn is in the prompt and not learnt; the last one is."""
    return all([m.get("learn") for m in r["messages"]] == [None, False, None, None] for r in read.records)


def good_only(read: Read) -> bool:
    texts = [message["content"] for record in read.records for message in record["messages"]]
    bad = ("我不知道", "不知道")
    return len(read.records) == 4 and read.reasons == ["marked_bad"] * 4 and not any(t.startswith(bad) for t in texts)


def no_bad_side(read: Read) -> bool:
    texts = [message["content"] for record in read.records for message in record["messages"]]
    return len(read.records) == 8 and "不知道" not in texts and all("references" not in r for r in read.records)


COLUMNS = {"columns": {"question": "标题", "answer": "正文"}}
SUMMARY = {"columns": {"question": "content", "answer": "summary"}}
TRIPLES = ("良性前列腺增生_就诊科室_泌尿外科\n良性前列腺增生_多发人群_中老年男性", "阿司匹林_适应证_心肌梗死")
CASES = [
    Case("d01_columns_csv_docs_example", whole(8), COLUMNS),
    Case("d01b_columns_csv_with_format", whole(8), COLUMNS | {"format": "table"}),
    Case("d02_wenda_keys", whole(8)),
    Case("d02b_q_a_keys", whole(8)),
    Case("m01_cmb_option_dict", both(asked("宝宝发烧", "\nA. 观察\nB. 手术"), answers("A", "B", task="label"))),
    Case("m03_cmexam_csv", both(asked("宝宝发烧", "\nA 观察\nB 手术"), answers("A", "B", task="label"),
                                told(unused={"Explanation": 8}))),
    Case("m04_squad_context", both(whole(8), asked("材料0：某县公司以竞标方式获取土地使用权。\n宝宝发烧"))),
    Case("m06_doccano_ner", answers("人名:张三\n机构:北京大学", "人名:李四", "药物:阿司匹林", "", task="entities")),
    Case("m07b_nan_text", both(whole(8), told(repairs={"missing_value": 8}),
                               lambda read: all("nan" not in text for n in range(8) for text in read.contents(n)))),
    Case("m10_headless_tsv", whole(8)),
    Case("m10_headless_tsv", whole(8), {"columns": {"question": 0, "answer": 1}}),
    Case("m11_two_line_no_blank", whole(8), {"format": "line_pairs"}),
    Case("m12_wen_da_txt", both(whole(8), asked("宝宝发烧三十九度要不要马上吃退烧药"))),
    Case("m13_data_wrapper", whole(8)),
    Case("m14_huatuo_infer_wu", told(answers={"without_content": 8})),
    Case("m15_lawyer_history_strings", both(asked("《民法典》第一百条\n宝宝发烧"), lambda read: read.roles() == "uaua"
         and read.contents()[2] == "那我怎么办？")),
    Case("m16_answers_plural", whole(8)),
    Case("m17_questions_answers_huatuo", both(whole(8), told(unused={"questions.others": 8}))),
    Case("r01_content_summary", whole(8)),
    Case("r01b_content_summary_columns", whole(8), SUMMARY),
    Case("r01c_content_summary_columns_fmt", whole(8), SUMMARY | {"format": "json_lines"}),
    Case("r03_context_target", whole(8)),
    Case("r03b_context_target_columns", whole(8), {"columns": {"question": "context", "answer": "target"}}),
    Case("r07_loss_false_turn", both(masked, told(noticed={"masked_answers": 8}))),
    Case("r08_kto_label", good_only),
    Case("r08b_answer_label_goodbad", good_only),
    Case("r08c_kto_tag", good_only),
    Case("r09b_answer_two_dialogues", no_bad_side, {"columns": {"messages": "answer.0"}}),
    Case("r09c_messages_rejected_response", no_bad_side, {"preference": "chosen"}),
    Case("r09d_response_chosen", no_bad_side, {"preference": "chosen"}),
    Case("r09e_trl_dpo", no_bad_side, {"preference": "chosen"}),
    Case("r10_huatuogpt_data", both(whole(8), asked("宝宝发烧三十九度要不要马上吃退烧药"))),
    Case("r11_pica_rounds_txt", lambda read: read.roles() == "uaua" and "Round" not in "".join(read.contents())),
    Case("r11b_pica_in_json", lambda read: {read.roles(n) for n in range(8)} == {"uaua"}),
    Case("r13_pretty_objects_in_jsonl", whole(8)),
    Case("r18_paren_triples", answers(*TRIPLES, "", task="triples")),
    Case("r18b_paren_triples_task", answers(*TRIPLES, "", task="triples"), {"task": "triples"}),
    Case("r18d_literal_backslash_n", both(answers(*TRIPLES, task="triples"), told(repairs={"written_out_line_ends": 3}))),
    Case("r21b_jsonl_gz", whole(8)),
    Case("r22_from_user", whole(8)),
    Case("r23_tools_in_system_message", both(whole(8), told(unused={"messages.tools": 8}))),
    Case("r25_empty_system_message", both(whole(8), told(repairs={"empty_system": 8}))),
    Case("r25c_empty_system_with_option", lambda read: read.contents()[0] == "你", {"system": "你"}),
    Case("r25d_empty_system_with_option", both(whole(8), told(repairs={"empty_system": 8})), {"system": ""}),
    Case("s02_images_alpaca", both(whole(8), told(unused={"images": 8})), {"ignore": ["images"]}),
    Case("s03_reference_fields", both(whole(8), asked("《民法典》第一千零七十六条", "\n宝宝发烧")), {"use": ["laws"]}),
    Case("s03_reference_fields", both(whole(8), asked("宝宝发烧"), told(unused={"laws": 8})), {"ignore": ["laws"]}),
]  # fmt: skip
REFUSED = [
    ("m11_two_line_no_blank", {}, r"it has lines such as “宝宝.*write `format: line_pairs` under this source"),
    (
        "r09b_answer_two_dialogues",
        {},
        r"8 of its items have several dialogues in their answer.*`columns: \{messages: answer.0\}`",
    ),
    ("r09c_messages_rejected_response", {}, "8 of its items are preference pairs.*`preference: chosen`"),
    ("r09d_response_chosen", {}, "8 of its items are preference pairs.*`preference: chosen`"),
    ("r09e_trl_dpo", {}, "8 of its items are preference pairs.*`preference: chosen`"),
    ("r21_xlsx", {}, "can't be read as a workbook"),
    ("s02_images_alpaca", {}, r"rests on fields that no reader uses: images \(8 items\); `ignore: \[images\]`"),
]


def path_of(samples: Path, folder: str) -> Path:
    """The one file, or folder of files, of a case."""
    (path,) = (samples / "cases/data" / folder).iterdir()
    return path


def read_checked(path: Path, options: Mapping[str, Any]) -> Read:
    """As the stage reads it, with what it refuses."""
    result = read(path, **options)
    params = section([{"path": path.name, **options}])
    check_rejects(params, [result.counts])
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.folder}{dict(case.options) or ''}")
def test_a_case_is_read_as_it_should_be(samples, case):
    assert case.check(read_checked(path_of(samples, case.folder), case.options))


@pytest.mark.parametrize(("folder", "options", "message"), REFUSED, ids=lambda value: str(value)[:24])
def test_a_case_is_refused_with_what_settles_it(samples, folder, options, message):
    with pytest.raises(ValueError, match=message):
        read_checked(path_of(samples, folder), options)
