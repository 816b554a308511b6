"""Names that raw records give their fields and speakers, and what a record is by them: a pair, a dialogue or triples."""

import re
from functools import lru_cache
from typing import Any

QUESTION = (
    "question", "query", "ask", "instruction", "instruct", "prompt", "input", "human", "content", "title", "text",
    "sentence", "问题", "提问", "咨询", "q", "问", "题目", "question_text", "open_ended_verifiable_question",
    "open_ended_question", "open_ended", "questions", "user_input", "user", "src", "context", "passage", "article", "document",
)  # fmt: skip
"""Fields that may hold the question, the likeliest first. Case does not matter, nor does a blank or hyphen for `_`."""
ANSWER = (
    "answer", "response", "output", "long_answer", "completion", "assistant", "answers", "target", "summary", "reply",
    "ground_true_answer", "ground_truth_answer", "ground_truth", "gold_answer", "golden_answer", "correct_answer",
    "reference_answer", "best_answer", "standard_answer", "tgt", "回答", "答案", "回复", "标准答案", "参考答案",
    "医生回答", "bot", "gpt", "答", "a", "label", "labels",
)  # fmt: skip
INSTRUCTION = ("instruction", "instruct")
BODY = ("input", "text", "sentence", "content", "question", "query", "问题")
"""Fields that an instruction is about, the likeliest first."""
SYSTEM = ("system", "meta_instruction", "system_prompt")
MESSAGES = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "dialogs", "chat", "turns", "rounds", "对话",
)  # fmt: skip
LINES = ("data", "history", "dialogue_history", "utterances")
"""Fields that are a dialogue when they hold lines, each of which names its speaker."""
TRIPLES = ("spo_list", "triples", "triple_list", "relations", "relation_list", "spos", "三元组")
ENTITIES = ("entities", "label", "labels", "spans", "annotations", "entity_list")
ROLE = ("role", "from", "speaker")
CONTENT = ("content", "value", "text", "utterance")
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(
        ("user", "human", "client", "patient", "来访者", "咨询者", "客户", "患者", "病人", "孩子", "用户"), "user"
    ),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatbot", "counselor", "counsellor", "doctor"), "assistant"),
    **dict.fromkeys(("chatlaw", "心理咨询师", "咨询师", "律师", "医生", "智能助手", "助手"), "assistant"),
    **dict.fromkeys(
        ("tool", "function", "function_call", "observation", "tool_call", "tool_response", "ipython"), "tool"
    ),
}
"""Names of speakers, in lower case, to roles."""
STRONG = {
    "question", "query", "ask", "instruction", "instruct", "prompt", "input", "human", "title", "text", "sentence",
    "问题", "提问", "咨询", "answer", "response", "output", "long_answer", "completion", "assistant", "label", "回答",
    "答案", "回复", *SYSTEM, *MESSAGES, *TRIPLES, "history", "paragraphs",
    "qas", "qa", "qa_pairs", "qa_list",
}  # fmt: skip
"""Fields of which one alone tells a record."""
_MENTION = re.compile('"(' + "|".join(sorted(STRONG)) + r')"\s*:', re.IGNORECASE)
_NUMBERED = re.compile(r"\D{0,8}(\d+)")


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A field's name as it is looked up: `Ground-True Answer` is ground_true_answer."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def is_field(name: str) -> bool:
    """Whether a record of ours may have a field of this name."""
    return plain_name(name) in STRONG or name.lower() in ROLE


def mentions_field(text: str) -> bool:
    """Whether a text that is no whole JSON names such a field."""
    return _MENTION.search(text) is not None


def is_record(value: Any, named: tuple[str, ...] = ()) -> bool:
    """Whether a JSON value looks like a record: it has fields of known names, or all that the user has `named`."""
    value = unwrap(value)
    if isinstance(value, list):
        return is_message(value[0]) if value else False
    if not isinstance(value, dict):
        return False
    if named and all(name.split(".")[0] in value or name in value for name in named):
        return True
    names = {plain_name(name) for name in value if isinstance(name, str)}
    if names & STRONG or {"chosen", "rejected"} <= names or (names & set(QUESTION) and names & set(ANSWER)):
        return True
    return bool(numbered(value)) or (bool(names & set(LINES)) and any(is_text_list(entry) for entry in value.values()))


def is_message(value: Any) -> bool:
    """Whether the value is one message of a dialogue, of any kind."""
    if not isinstance(value, dict):
        return False
    role, content = first_field(ROLE, value), first_field(CONTENT, value)
    if role and content:
        return str(value[role]).lower() in ROLES
    return {name.lower() for name in value} <= set(ROLES)


def is_text_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(entry, str) for entry in value)


def numbered(value: Any) -> list[Any]:
    """Entries of an object whose keys are numbers (`1`, `round_2`), in their order; none when it is another one."""
    if not isinstance(value, dict) or not value or not next(iter(value))[-1:].isdigit():
        return []
    places = [_NUMBERED.fullmatch(name) for name in value]
    if not all(places) or not all(isinstance(entry, dict | list) for entry in value.values()):
        return []
    order = sorted(zip((int(place.group(1)) for place in places if place), value.values(), strict=True), key=_place)
    entries = [entry for _, part in order for entry in (part if isinstance(part, list) else [part])]
    return entries if all(isinstance(entry, dict | str) for entry in entries) else []


def _place(entry: tuple[int, Any]) -> int:
    return entry[0]


def unwrap(value: Any) -> Any:
    """The only element of a list of one, as some files wrap records and values."""
    return value[0] if isinstance(value, list) and len(value) == 1 and not is_message(value[0]) else value


def first_field(names: tuple[str, ...], fields: dict[str, Any]) -> str:
    """The field of the record whose name comes first in `names`, "" when there is none."""
    found = present_fields(names, tuple(fields))
    return found[0] if found else ""


@lru_cache(maxsize=4096)
def present_fields(names: tuple[str, ...], fields: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the fields that `names` has, in its order."""
    known = {plain_name(name): name for name in fields}
    if "a" in known and "b" in known:
        # Choices, and no answer.
        del known["a"]
    return tuple(known[name] for name in names if name in known)
