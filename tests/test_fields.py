"""Fields of raw records: every text is in the record or counted as unused, and what carries the task is settled."""

import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.reading import section
from tuneline.data.fields.accounted import CONTEXT, PICTURES, REASONING, TEXTS
from tuneline.data.fields.choices import OPTIONS
from tuneline.data.fields.marks import CHOSEN, REJECTED
from tuneline.data.fields.names import ANSWER, ENTITIES, MESSAGES, QUESTION, SYSTEM
from tuneline.data.fields.values import leaves
from tuneline.data.normalize import parse_record
from tuneline.data.readers import RawFile
from tuneline.data.turns.conversation import RejectedRecordError

NAMES = (*QUESTION, *ANSWER, *SYSTEM, *MESSAGES, *CONTEXT, *TEXTS, *OPTIONS, *PICTURES, *REASONING, "history", "tools", "A",
         "B", "C", "id", "source", "explanation", "meta", "数据", "title", *CHOSEN[:3], *REJECTED[:3], *ENTITIES)  # fmt: skip
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.just("text")},
    optional={"name": st.just("text"), "reasoning_content": st.just("text"), "loss": st.booleans(), "weight": st.just(0.5),
              "tools": st.just(["text"])},
)  # fmt: skip
EXCHANGE = st.fixed_dictionaries(
    {"human": st.just("text"), "assistant": st.just("text")}, optional={"note": st.just("text")}
)
ENTITY = st.fixed_dictionaries({"type": st.just("text"), "name": st.just("text")}, optional={"note": st.just("text")})
TOOL = st.fixed_dictionaries({"name": st.just("text")}, optional={
    "type": st.sampled_from(["text", "function"]), "description": st.just("text"),
    "parameters": st.dictionaries(st.sampled_from("AB"), st.dictionaries(st.sampled_from(["type", "note"]), st.just("text"))),
})  # fmt: skip
TOOLS = st.lists(
    st.one_of(TOOL, st.fixed_dictionaries({"function": TOOL}, optional={"strict": st.just("text")})), max_size=2
)
VALUES = st.one_of(
    TOOLS,
    st.just("text"), st.just("text"), st.just(""), st.just(None), st.just("nan"), st.integers(0, 3),
    st.lists(st.just("text"), max_size=3), st.dictionaries(st.sampled_from("ABCD"), st.just("text"), max_size=4),
    st.lists(MESSAGE, max_size=4), st.lists(EXCHANGE, max_size=2), st.lists(ENTITY, max_size=2),
    st.dictionaries(st.just("text"), st.dictionaries(st.just("name"), st.just([[0, 2]]), max_size=1), max_size=1),
    st.lists(st.lists(st.just("text"), min_size=2, max_size=2), max_size=2),
    st.fixed_dictionaries({"text": st.lists(st.just("text"), max_size=2), "start": st.integers()}),
    st.just({"inner": {"deeper": ["text", {"deepest": "text"}]}}),
)  # fmt: skip
RECORDS = st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=2, max_size=7)
ASKED = st.tuples(st.sampled_from(QUESTION[:8]), st.sampled_from(ANSWER[:6]))
OPTIONS_OF_SOURCES = st.sampled_from([
    {}, {}, {}, {"system": "你"}, {"instruction": "请回答"}, {"template": "问题：{question}"}, {"ignore": ["laws", "history"]},
    {"use": ["explanation", "laws"]}, {"preference": "chosen"}, {"columns": {"answer": "meta.inner.deeper.0"}},
    {"columns": {"question": "title"}}, {"task": "labels"},
])  # fmt: skip


def numbered_texts(value, count):
    """The value with every `text` made one that is nowhere else."""
    if value == "text":
        count.append(0)
        return f"文{len(count):04}字"
    if isinstance(value, dict):
        return {name: numbered_texts(inner, count) for name, inner in value.items()}
    return [numbered_texts(inner, count) for inner in value] if isinstance(value, list) else value


def without_indexes(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", "", path)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(RECORDS, ASKED, OPTIONS_OF_SOURCES)
def test_every_text_of_a_raw_record_is_in_the_record_or_counted_as_unused(fields, asked, options):
    fields = {asked[0]: "text", asked[1]: "text"} | fields
    fields = numbered_texts(fields, [])
    source = section([{"path": "a.jsonl", **options}]).sources[0]
    try:
        conversation = parse_record(source, RawFile("a.jsonl", "json_lines"), json.dumps(fields))
    except RejectedRecordError:
        # The raw text is in rejects.jsonl.
        return
    kept = json.dumps([conversation.messages, conversation.references, conversation.tools], ensure_ascii=False)
    unused = {without_indexes(path) for path in conversation.unused}
    dropped = any(name.startswith("dropped") for name in conversation.repairs)
    for name, value in fields.items():
        for path, text in leaves(value, name):
            if not isinstance(text, str) or not text.startswith("文") or text in kept:
                continue
            counted = any(
                path == other or path.startswith(f"{other}.") or other == f"{path}.others" for other in unused
            )
            assert counted or dropped, (path, text, conversation)
