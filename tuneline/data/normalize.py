"""Raw records to records, a batch at a time in a worker. The same batch gives the same bytes in any process."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.data.cleaning import clean, notices
from tuneline.data.config import Data, Source
from tuneline.data.detection import has_history
from tuneline.data.fields.accounted import unused_fields
from tuneline.data.fields.marks import CHOSEN, REJECTED
from tuneline.data.fields.names import (
    ENTITIES,
    LINES,
    MESSAGES,
    TRIPLES,
    is_message,
    is_text_list,
    numbered,
    present_fields,
    unwrap,
)
from tuneline.data.fields.seen import seen as seen_fields
from tuneline.data.fields.values import has_content, is_nan, value_at
from tuneline.data.limits.raw_files import reason_of, reject_line
from tuneline.data.notices.answer_faults import fault_of
from tuneline.data.pair_fields import find_field_names
from tuneline.data.plain_pairs import to_plain_pair
from tuneline.data.preference import good_side
from tuneline.data.readers import RawFile, RawRecord, entities, extraction, messages, pairs, parse_value, transcript
from tuneline.data.readers.raw import printable
from tuneline.data.spool import Part, Spooled, record_of, to_spool, write_part
from tuneline.data.tools.pairs import MESSAGES as CALLED
from tuneline.data.tools.pairs import called_answer, take_tools
from tuneline.data.turns.conversation import Conversation, RejectedRecordError
from tuneline.data.turns.foreign_markup import find_markup, turn_into_turns
from tuneline.data.turns.reasoning import take_reasoning

EXCLUDED = "excluded"
"""Reason of a record that data.exclude names."""
UNNAMED = ("no_question_field", "no_answer_field", "question_not_text", "answer_not_text", "not_an_object")
"""Reasons that `columns` may mend."""


class BatchJob(NamedTuple):
    """Raw records of one file, for a worker."""

    params: Data
    source: Source
    source_number: int
    file: RawFile
    raw_records: list[tuple[Any, ...]]
    """Parts of RawRecord: plain tuples travel in a third of the time."""
    exclude: Mapping[str, str] = {}
    """What tells the records of data.exclude, to their names there."""


@dataclass
class BatchResult:
    """Keys, output lines and counts of a batch."""

    source_number: int
    keys: bytes
    """spool.KEYS, one for each record."""
    texts: bytes
    records: bytes
    """Lines of the spool, one in both for each record; empty when they are in it."""
    rejects: bytes
    """Lines of rejects.jsonl."""
    items: int
    part: Part | None = None
    """Where the lines lie in the spool."""
    reasons: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    placeholders: Counter[str] = field(default_factory=Counter)
    """Those that data.placeholders does not fill."""
    markup: Counter[str] = field(default_factory=Counter)
    """Records with markup of another chat template that stays in their text."""
    answers: Counter[str] = field(default_factory=Counter)
    """Records with a fault of their answer."""
    excluded: Counter[str] = field(default_factory=Counter)
    """Names in data.exclude."""
    unused: Counter[str] = field(default_factory=Counter)
    """Paths of fields that no reader uses, by how many records have them."""
    noticed: Counter[str] = field(default_factory=Counter)
    """What is learnt and should be looked at."""
    seen: str = ""
    """What the first record holds in which no question or no answer was found."""


def read_batch(job: BatchJob) -> BatchResult:
    """Parse and clean every raw record of a batch, or reject it with a reason: whatever it holds, it costs itself alone."""
    result = BatchResult(job.source_number, b"", b"", b"", b"", len(job.raw_records))
    spooled: list[Spooled] = []
    rejects: list[bytes] = []
    seed, path = f"{job.params.seed}\n".encode(), printable(job.file.path)
    for raw in starmap(RawRecord, job.raw_records):
        origin = f"{path}:{raw.place if raw.place.isascii() else printable(raw.place)}"
        try:
            spooled.append(_spooled(job, raw, origin, seed, result))
        except Exception as error:
            result.reasons[reason := reason_of(error)] += 1
            if not result.seen and reason in UNNAMED:
                result.seen = seen_record(job.file, raw.text)
            rejects.append(reject_line(job.source.name, origin, reason, raw))
    if spooled:
        result.keys, result.texts, result.records = map(b"".join, zip(*spooled, strict=True))
    result.rejects = b"".join(rejects)
    return result


def read_to_spool(folder: Path, job: BatchJob) -> BatchResult:
    """The same with its lines in the spool in this folder: through a pipe they would wait for the first process."""
    result = read_batch(job)
    result.part = write_part(folder, result.texts, result.records)
    result.texts = result.records = b""
    return result


def _spooled(job: BatchJob, raw: RawRecord, origin: str, seed: bytes, result: BatchResult) -> Spooled:
    """What the spool holds of a raw record; adds to the counts of `result`. Raises RejectedRecordError."""
    if raw.reason is not None:
        raise RejectedRecordError(raw.reason)
    conversation = parse_record(job.source, job.file, raw.text)
    if "other_templates" in job.params.repairs and turn_into_turns(conversation):
        conversation.repairs.append("other_templates")
    clean(conversation, job.params, result.placeholders)
    spooled = to_spool(conversation, job.source.name, job.source_number, origin, raw.text, seed)
    for told in (record_of(spooled.record)["id"].rpartition(":")[2], origin) if job.exclude else ():
        if told in job.exclude:
            result.excluded[job.exclude[told]] += 1
            raise RejectedRecordError(EXCLUDED)
    _count(conversation, result)
    return spooled


def _count(conversation: Conversation, result: BatchResult) -> None:
    """Add what is remarkable of a conversation to the counts."""
    if conversation.repairs:
        result.repairs.update(set(conversation.repairs))
    # Counter.update takes its time, and there is a field or two in every row.
    for path in conversation.unused:
        result.unused[path] += 1
    for found in notices(conversation):
        result.noticed[found] += 1
    if template := find_markup(conversation.messages):
        result.markup[template] += 1
    if fault := fault_of(conversation.messages[-1]["content"], conversation.task):
        result.answers[fault] += 1


def parse_record(source: Source, file: RawFile, text: str) -> Conversation:
    """The conversation of a raw record, with the paths of what nothing of it uses. Raises RejectedRecordError."""
    try:
        value = unwrap(parse_value(file, text))
    except RejectedRecordError:
        raise
    except (ValueError, RecursionError, csv.Error):
        raise RejectedRecordError(f"broken_{file.format.split('_')[0]}") from None
    if isinstance(value, list) and value:
        spoken = transcript.is_spoken(value) or (source.format != "auto" and is_text_list(value))
        value = {"conversation": value} if spoken or is_message(value[0]) else value
    elif turns := numbered(value):
        value = {"conversation": turns}
    if not isinstance(value, dict):
        raise RejectedRecordError("not_an_object")
    missing = [name for name, entry in value.items() if is_nan(entry) and name not in source.ignore]
    conversation = conversation_of(source, file, value | dict.fromkeys(missing) if missing else value)
    if missing:
        conversation.repairs.append("missing_value")
    return conversation


def conversation_of(source: Source, file: RawFile, value: dict[str, Any]) -> Conversation:
    """The conversation of a record's fields. Raises RejectedRecordError with the reason."""
    if not any(kinds_of(tuple(value))) and (plain := to_plain_pair(source, file, value)):
        return plain
    if file.history_misplaced and has_history(value):
        raise RejectedRecordError("history_after_the_question")
    kept = {name: entry for name, entry in value.items() if name not in source.ignore} if source.ignore else value
    kinds = kinds_of(tuple(kept))
    used = frozenset[str]()
    if file.marks or file.two_outputs or kinds.pair:
        source, kept, used = good_side(source, file, kept)
    conversation = _conversation(source, file, kept, kinds.other)
    take_reasoning(conversation, kept)
    if value.keys() - conversation.used:
        texts = [message["content"] for message in conversation.messages]
        conversation.unused |= unused_fields(value, conversation.used.union(used, file.marks), texts)
    return conversation


def _conversation(source: Source, file: RawFile, fields: dict[str, Any], may_be_other: bool) -> Conversation:
    named = source.question or "question" in source.columns or "answer" in source.columns
    if not named and (may_be_other or "messages" in source.columns):
        key = messages.dialogue_field(source, fields)
        if key and (has_content(value_at(fields, key)) or not find_field_names(tuple(fields)).questions):
            return messages.to_conversation(source, fields, key)
        if extraction.is_extraction(fields):
            return extraction.to_conversation(source, fields)
        if source.task in ("auto", "entities") and entities.is_entities(fields, file.entities):
            return entities.to_conversation(source, fields)
    if source.template is None and (dialogue := called_answer(source, fields)):
        conversation = messages.to_conversation(source, dialogue.fields, CALLED)
        conversation.used = (conversation.used - {CALLED}) | dialogue.used
        return conversation
    conversation = pairs.to_conversation(source, fields, file.triple_lines)
    take_tools(conversation, source, fields)
    return conversation


class Kinds(NamedTuple):
    """What a record may be, by the names of its fields."""

    pair: bool
    """A preference pair, or a prompt and what completes it."""
    other: bool
    """A dialogue or an extraction, and no question with its answer."""


@lru_cache(maxsize=4096)
def kinds_of(names: tuple[str, ...]) -> Kinds:
    """What a record with fields of these names may be."""
    other = (*MESSAGES, *LINES, *TRIPLES, *ENTITIES, "instruction")
    pair = bool(present_fields((*CHOSEN, *REJECTED), names)) or len(present_fields(("prompt", "completion"), names)) > 1
    return Kinds(pair, bool(present_fields(other, names)))


def seen_record(file: RawFile, text: str) -> str:
    """What a raw record holds, in words."""
    try:
        value = unwrap(parse_value(file, text))
    except (ValueError, RecursionError, csv.Error):
        return ""
    return seen_fields(value) if isinstance(value, dict) else ""
