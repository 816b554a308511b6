"""Entity extraction, into one canonical answer: a line `type:name、name` for each type, in the order of the text.

{"text": "张三在北京大学读书", "label": [[0, 2, "人名"], [3, 7, "机构"]]}                                     (doccano)
{"text": "…", "entities": [{"start_idx": 0, "end_idx": 1, "type": "dis", "entity": "肺炎"}]}                (CMeEE)
{"text": "…", "label": {"name": {"叶老桂": [[9, 11]]}}}                                                  (CLUENER)

A text without an entity is valid: its answer is empty.
"""

from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.names import ENTITIES, first_field
from tuneline.data.fields.values import has_content
from tuneline.data.turns.conversation import Conversation, RejectedRecordError, system_message, user_turn

BETWEEN = "、"
_TEXT = ("text", "input", "sentence", "content")
_NAME = ("entity", "entity_text", "word", "mention", "name", "text", "value")
_TYPE = ("type", "label", "entity_type", "entity_label", "category")
_START = ("start", "start_offset", "start_idx", "begin", "start_pos")
_END = ("end", "end_offset", "end_idx", "end_pos")
Entity = tuple[int, str, str]
"""Where it stands, its type, its name."""


def is_entities(fields: dict[str, Any], empty: bool) -> bool:
    """Whether a record is a text with entities in it; `empty`: an empty list says that there are none."""
    key, text = first_field(ENTITIES, fields), fields.get(first_field(_TEXT, fields))
    if not key or not isinstance(text, str):
        return False
    value = fields[key]
    if isinstance(value, dict):
        return bool(value) and all(
            isinstance(names, dict) and all(map(_are_places, names.values())) for names in value.values()
        )
    if not isinstance(value, list):
        return False
    return (empty or bool(value)) and all(_is_span(entry) or _is_object(entry) for entry in value)


def to_conversation(source: Source, fields: dict[str, Any]) -> Conversation:
    """The text as question, its entities as answer. Raises RejectedRecordError for entities that can't be read."""
    text_key, key = first_field(_TEXT, fields), first_field(ENTITIES, fields)
    text = fields[text_key]
    if not text.strip():
        raise RejectedRecordError("empty_question")
    repairs: list[str] = []
    answer = canonical(_entities(fields[key], text), repairs)
    prompt = user_turn(source, fields, "", text, text)
    messages = system_message(source.system or "")
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Conversation("entities", messages, "", text, [], repairs, {text_key, key}, _unused(fields[key], key))


def _unused(entities: Any, key: str) -> set[str]:
    """Paths of what objects hold beside the type, the name and the place of an entity."""
    found: set[str] = set()
    for entry in filter(lambda entry: isinstance(entry, dict), entities):
        used = {first_field(names, entry) for names in (_TYPE, _NAME, _START, _END)}
        found |= {f"{key}.{name}" for name, value in entry.items() if name not in used and has_content(value)}
    return found


def canonical(entities: list[Entity], repairs: list[str]) -> str:
    """The one answer text of a set of entities. Raises RejectedRecordError for a name that can't be written so."""
    by_type: dict[str, list[str]] = {}
    for _, kind, name in sorted(entities):
        if not name.strip() or not kind.strip() or BETWEEN in name or "\n" in name or ":" in kind:
            raise RejectedRecordError("separator_in_entity")
        by_type.setdefault(kind, []).append(name)
    different = {kind: list(dict.fromkeys(names)) for kind, names in by_type.items()}
    if different != by_type:
        repairs.append("repeated_entities")
    return "\n".join(f"{kind}:{BETWEEN.join(names)}" for kind, names in different.items())


def _is_span(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and [type(part) for part in entry] == [int, int, str]


def _are_places(value: Any) -> bool:
    """Whether these are beginnings and ends of an entity in its text."""
    return isinstance(value, list) and all(
        isinstance(place, list) and [type(part) for part in place] == [int, int] for place in value
    )


def _is_object(entry: Any) -> bool:
    return isinstance(entry, dict) and bool(first_field(_TYPE, entry)) and bool(first_field((*_NAME, *_START), entry))


def _entities(value: Any, text: str) -> list[Entity]:
    if isinstance(value, dict):
        return [(text.find(name), kind, name) for kind, names in value.items() for name in names]
    return [_entity(entry, text) for entry in value]


def _entity(entry: Any, text: str) -> Entity:
    """An entity; its end is the place after it, where its name is not written beside."""
    if not isinstance(entry, dict):
        start, end, kind = entry
        return start, kind, text[start:end]
    kind, name = entry[first_field(_TYPE, entry)], entry.get(first_field(_NAME, entry))
    start, end = (entry.get(first_field(names, entry)) for names in (_START, _END))
    if name is None and isinstance(start, int) and isinstance(end, int):
        name = text[start:end]
    if not isinstance(name, str) or not isinstance(kind, str):
        raise RejectedRecordError("entities_unreadable")
    return start if isinstance(start, int) else text.find(name), kind, name
