"""Triple extraction, into one canonical answer: a line head_relation_tail for each triple, in the order of the text.

{"instruction": "…的相关三元组，三元组内部用\\"_\\"连接…", "input": "为打消市场顾虑…", "output": "工行_被持股_美国运通\\n…"}
{"instruction": "{\\"instruction\\": …, \\"schema\\": [\\"号\\"], \\"input\\": …}", "output": "{\\"号\\": []}"}   (DeepKE)
{"text": "东方航空AH股临时停牌传将与上航合并", "triples": [["东方航空", "合并", "上航"]]}

A text without a triple is valid: its answer is empty.
"""

import json
from typing import Any

from tuneline.data.config import Source
from tuneline.data.readers.conversation import Conversation, RejectedRecordError, system_message, user_turn
from tuneline.data.readers.field_names import TRIPLES, first_field

SEPARATOR = "_"
Triple = tuple[str, str, str]
"""Head, relation, tail."""


def is_extraction(fields: dict[str, Any]) -> bool:
    """Whether a record is an extraction task: it has triples, or DeepKE's instruction."""
    return bool(first_field(TRIPLES, fields)) or _deepke_task(fields.get("instruction")) is not None


def is_triple_lines(answer: Any) -> bool:
    """Whether a non-empty answer consists of lines head_relation_tail."""
    return (
        isinstance(answer, str)
        and bool(answer.strip())
        and all(len(line.split(SEPARATOR)) == 3 and all(line.split(SEPARATOR)) for line in answer.strip().split("\n"))
    )


def to_conversation(source: Source, fields: dict[str, Any]) -> Conversation:
    """The text as question, its triples as answer. Raises RejectedRecordError for triples that can't be read."""
    task = _deepke_task(fields.get("instruction"))
    if task is None:
        text = fields.get(first_field(("text", "input", "sentence"), fields))
        instruction, triples = "", fields[first_field(TRIPLES, fields)]
    else:
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
    return Conversation("triples", messages, "", text, [], repairs)


def canonical(triples: list[Triple], text: str, repairs: list[str]) -> str:
    """The one answer text of a set of triples, ordered by where they stand in the text. Raises RejectedRecordError."""
    if any(SEPARATOR in part or "\n" in part or not part.strip() for triple in triples for part in triple):
        raise RejectedRecordError("separator_in_triple")
    different = sorted(set(triples), key=lambda triple: (text.find(triple[0]), text.find(triple[2]), triple))
    if len(different) < len(triples):
        repairs.append("repeated_triples")
    return "\n".join(map(SEPARATOR.join, different))


def canonical_lines(answer: str, repairs: list[str]) -> str:
    """The same for an answer that has such lines already; their order is the author's. Raises RejectedRecordError."""
    lines = [line.strip() for line in answer.replace("\r\n", "\n").split("\n") if line.strip()]
    for line in lines:
        if len(line.split(SEPARATOR)) != 3:
            raise RejectedRecordError(f"triple_of_{len(line.split(SEPARATOR))}_parts")
    different = list(dict.fromkeys(lines))
    if len(different) < len(lines):
        repairs.append("repeated_triples")
    return "\n".join(different)


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
    return [_triple(entry) for entry in value]


def _triple(entry: Any) -> Triple:
    if isinstance(entry, dict):
        names = (("head", "subject"), ("relation", "predicate"), ("tail", "object"))
        parts = [entry.get(first_field(alternatives, entry)) for alternatives in names]
    else:
        parts = list(entry) if isinstance(entry, list | tuple) else []
    texts = [part.strip() for part in parts if isinstance(part, str)]
    if len(texts) != 3 or len(parts) != 3:
        raise RejectedRecordError("triples_unreadable")
    return texts[0], texts[1], texts[2]
