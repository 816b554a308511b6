"""Triple extraction, into one canonical answer: a line head_relation_tail for each triple, in the order of the text.

{"instruction": "…的相关三元组，三元组内部用\\"_\\"连接…", "input": "为打消市场顾虑…", "output": "工行_被持股_美国运通\\n…"}
{"instruction": "抽取三元组", "input": "为打消市场顾虑…", "output": "(工行,被持股,美国运通),(…)"}
{"instruction": "{\\"instruction\\": …, \\"schema\\": [\\"号\\"], \\"input\\": …}", "output": "{\\"号\\": []}"}   (DeepKE)
{"text": "东方航空AH股临时停牌传将与上航合并", "triples": [["东方航空", "合并", "上航"]]}
{"text": "…", "spo_list": [{"subject": "…", "predicate": "票房", "object": {"@value": "1亿", "inArea": "…"}}]}     (DuIE)

A text without a triple is valid: its answer is empty.
"""

import ast
import json
import re
from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.names import TRIPLES, first_field, plain_name
from tuneline.data.turns.conversation import Conversation, RejectedRecordError, system_message, user_turn

SEPARATOR = "_"
CERTAIN = ("spo_list", "triples", "triple_list", "spos", "三元组")
"""Fields that hold triples and nothing else, so that an empty list says that there is none."""
PARTS = (("head", "subject", "h"), ("relation", "predicate", "type", "r"), ("tail", "object", "t"))
"""Names of the parts of a triple."""
Triple = tuple[str, str, str]
"""Head, relation, tail."""
NONE = ("", "nan", "none", "null", "无", "没有", "[]", "{}", "()", "空", "无三元组")
"""Answers that say that there is no triple."""
_BRACKETED = re.compile(r"[(（<《]([^()（）<>《》]*)[)）>》]")
_BETWEEN = re.compile(r"[\s,，;；、]*")
_COMMA = re.compile(r"[,，]")


def is_extraction(fields: dict[str, Any]) -> bool:
    """Whether a record is an extraction task: it has triples, or DeepKE's instruction."""
    key = first_field(TRIPLES, fields)
    if key and (plain_name(key) in CERTAIN or _structured(fields[key])):
        return True
    return _deepke_task(fields.get("instruction")) is not None


def lines_of(value: Any) -> Any:
    """An answer of triples in lists or objects, or the JSON or Python text of them, as lines; any other as it is."""
    found = _structured(value)
    if found is None:
        return "" if value in ([], {}) else value
    return "\n".join(SEPARATOR.join(triple) for triple in _triples(found))


def _structured(value: Any) -> list[Any] | None:
    """The triples of a value that is a list of them; None for any other."""
    if isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]":
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    if not isinstance(value, list) or not value:
        return None
    return value if all(map(_is_triple, value)) else None


def _is_triple(entry: Any) -> bool:
    if isinstance(entry, dict):
        return all(first_field(names, entry) for names in PARTS)
    return isinstance(entry, list | tuple) and len(entry) == 3 and all(isinstance(part, str) for part in entry)


def says_none(answer: Any) -> bool:
    """Whether an answer says that the text holds no triple."""
    return isinstance(answer, str) and answer.strip().lower() in NONE


def is_triples(answer: Any) -> bool:
    """Whether a non-empty answer consists of triples: lines head_relation_tail, or (head,relation,tail)."""
    text = lines_of(answer)
    lines = _lines(text, []) if isinstance(text, str) else []
    parts = [line.split(SEPARATOR) for line in lines]
    return bool(lines) and all(len(part) == 3 and all(part) for part in parts)


def to_conversation(source: Source, fields: dict[str, Any]) -> Conversation:
    """The text as question, its triples as answer. Raises RejectedRecordError for triples that can't be read."""
    task = _deepke_task(fields.get("instruction"))
    if task is None:
        text_key, triples_key = first_field(("text", "input", "sentence"), fields), first_field(TRIPLES, fields)
        text, instruction, triples = fields.get(text_key), "", fields[triples_key]
        used = {text_key, triples_key}
    else:
        used = {"instruction", "label" if "label" in fields else "output"}
        text, instruction = task.get("input"), _instruction(task.get("schema"))
        triples = fields.get("label") if "label" in fields else fields.get("output")
    if not isinstance(text, str) or not text.strip():
        raise RejectedRecordError("empty_question")
    repairs = ["canonical_instruction"] if task is not None else []
    answer = canonical(_triples(triples), text, repairs)
    prompt = user_turn(source, fields, instruction, text, text)
    messages = system_message(source.system or "")
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    # Only the text is compared: the same text under another schema leaks its triples.
    return Conversation("triples", messages, "", text, [], repairs, used)


def canonical(triples: list[Triple], text: str, repairs: list[str]) -> str:
    """The one answer text of a set of triples, ordered by where they stand in the text. Raises RejectedRecordError."""
    if any(SEPARATOR in part or "\n" in part or not part.strip() for triple in triples for part in triple):
        raise RejectedRecordError("separator_in_triple")
    different = sorted(set(triples), key=lambda triple: (text.find(triple[0]), text.find(triple[2]), triple))
    if len(different) < len(triples):
        repairs.append("repeated_triples")
    return "\n".join(map(SEPARATOR.join, different))


def canonical_lines(answer: str, repairs: list[str]) -> str:
    """The same for an answer that has triples already; their order is the author's. Raises RejectedRecordError."""
    if says_none(answer):
        if answer.strip():
            repairs.append("no_triple_word")
        return ""
    lines = _lines(answer, repairs)
    for line in lines:
        if len(line.split(SEPARATOR)) != 3:
            raise RejectedRecordError(f"triple_of_{len(line.split(SEPARATOR))}_parts")
    different = list(dict.fromkeys(lines))
    if len(different) < len(lines):
        repairs.append("repeated_triples")
    return "\n".join(different)


def _lines(answer: str, repairs: list[str]) -> list[str]:
    """An answer's triples, a line each; a \\n that is written out ends a line, too."""
    bracketed = _BRACKETED.findall(answer)
    if bracketed and not _BETWEEN.sub("", _BRACKETED.sub("", answer)):
        parts = [[part.strip() for part in _COMMA.split(triple)] for triple in bracketed]
        if not any(SEPARATOR in name for part in parts for name in part):
            repairs.append("triples_in_brackets")
            return [SEPARATOR.join(part) for part in parts]
    text = answer.replace("\r\n", "\n")
    if "\\n" in text:
        repairs.append("written_out_line_ends")
        text = text.replace("\\r\\n", "\n").replace("\\n", "\n")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _deepke_task(instruction: Any) -> dict[str, Any] | None:
    """DeepKE's instruction, which is an object in a string; None for any other."""
    if not isinstance(instruction, str) or not instruction.startswith("{"):
        return None
    try:
        value = json.loads(instruction, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "input" in value and "schema" in value else None


def _instruction(schema: Any) -> str:
    """Instruction for the relations of a schema, in words that fit the canonical answer (DeepKE's own wants JSON).

    Raises RejectedRecordError.
    """
    if not isinstance(schema, list):
        raise RejectedRecordError("schema_unreadable")
    entries = [entry.get("predicate") if isinstance(entry, dict) else entry for entry in schema]
    names = [name for name in entries if isinstance(name, str)]
    if len(names) < len(entries):
        raise RejectedRecordError("schema_unreadable")
    return f"抽取文本中的三元组，每行一个，写作“头实体_关系_尾实体”，没有则留空。关系：{'、'.join(names)}。"


def _triples(value: Any) -> list[Triple]:
    """Triples from lists of three, lists of objects, or DeepKE's {relation: [{subject, object}]}; JSON text is decoded."""
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False) if value.strip() else []
        except (ValueError, RecursionError):
            raise RejectedRecordError("triples_unreadable") from None
    if isinstance(value, dict):
        value = [
            entry | {"relation": relation} if isinstance(entry, dict) else None
            for relation, entries in value.items()
            for entry in (entries if isinstance(entries, list) else [None])
        ]
    if not isinstance(value, list):
        raise RejectedRecordError("triples_unreadable")
    return [triple for entry in value for triple in _triples_of(entry)]


def _triples_of(entry: Any) -> list[Triple]:
    """The triple of an entry; of one whose tail has slots (DuIE 2.0) a triple for each, its relation `relation.slot`."""
    if not isinstance(entry, dict):
        return [_checked(list(entry) if isinstance(entry, list | tuple) else [])]
    head, relation, tail = (entry.get(first_field(alternatives, entry)) for alternatives in PARTS)
    if not isinstance(tail, dict):
        return [_checked([head, relation, tail])]
    return [
        _checked([head, relation if slot == "@value" else f"{relation}.{slot}", text]) for slot, text in tail.items()
    ]


def _checked(parts: list[Any]) -> Triple:
    texts = [part.strip() for part in parts if isinstance(part, str)]
    if len(texts) != 3 or len(parts) != 3:
        raise RejectedRecordError("triples_unreadable")
    return texts[0], texts[1], texts[2]
