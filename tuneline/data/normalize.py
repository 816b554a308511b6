"""Raw records to records, a batch at a time in a worker. The same batch gives the same bytes in any process."""

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tuneline.data.cleaning import clean
from tuneline.data.config import Data, Source
from tuneline.data.readers import RawFile, RawRecord, extraction, has_history, messages, pairs, parse_value
from tuneline.data.readers.conversation import Conversation, RejectedRecordError
from tuneline.data.readers.field_names import MESSAGES, first_field, is_message, unwrap
from tuneline.data.readers.raw import printable
from tuneline.data.readers.text import REJECT_BYTES
from tuneline.data.reasoning import take_reasoning
from tuneline.data.spool import KEYS, to_spool_line
from tuneline.formats.records import to_line

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BatchJob(NamedTuple):
    """Raw records of one file, for a worker."""

    params: Data
    source: Source
    source_number: int
    file: RawFile
    raw_records: list[RawRecord]


@dataclass
class BatchResult:
    """Keys, output lines and counts of a batch."""

    source_number: int
    keys: "NDArray[Any]"
    """spool.KEYS, one for each record."""
    spool: bytes
    """Lines of the spool, one for each record."""
    rejects: bytes
    """Lines of rejects.jsonl."""
    items: int
    reasons: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    placeholders: Counter[str] = field(default_factory=Counter)
    """Those that data.placeholders does not fill."""


def read_batch(job: BatchJob) -> BatchResult:
    """Parse and clean every raw record of a batch, or reject it with a reason."""
    repairs, placeholders, reasons = Counter[str](), Counter[str](), Counter[str]()
    keys: list[tuple[Any, ...]] = []
    lines: list[bytes] = []
    rejects: list[bytes] = []
    seed, name = f"{job.params.seed}\n", job.source.name
    for raw in job.raw_records:
        origin = printable(f"{job.file.path}:{raw.place}")
        try:
            if raw.reason is not None:
                raise RejectedRecordError(raw.reason)
            conversation = parse_record(job.source, job.file, raw.text)
            clean(conversation, job.params, placeholders)
        except RejectedRecordError as error:
            reasons[str(error)] += 1
            rejects.append(reject_line(name, origin, str(error), raw))
            continue
        if conversation.repairs:
            repairs.update(set(conversation.repairs))
        key, line = to_spool_line(conversation, name, job.source_number, origin, raw.text, seed)
        keys.append(key)
        lines.append(line)
    return BatchResult(
        job.source_number, np.array(keys, dtype=KEYS), b"".join(lines), b"".join(rejects), len(job.raw_records),
        reasons, repairs, placeholders,
    )  # fmt: skip


def parse_record(source: Source, file: RawFile, text: str) -> Conversation:
    """The conversation of a raw record. Raises RejectedRecordError with the reason."""
    try:
        value = unwrap(parse_value(file, text))
    except RejectedRecordError:
        raise
    except (ValueError, RecursionError, csv.Error):
        raise RejectedRecordError(f"broken_{file.format.split('_')[0]}") from None
    if isinstance(value, list) and value and is_message(value[0]):
        value = {"conversation": value}
    if not isinstance(value, dict):
        raise RejectedRecordError("not_an_object")
    if file.history_misplaced and has_history(value):
        raise RejectedRecordError("history_after_the_question")
    conversation = _conversation(source, file, value)
    take_reasoning(conversation, value)
    return conversation


def _conversation(source: Source, file: RawFile, value: dict[str, Any]) -> Conversation:
    """What a record's fields say, by the kind of record that it is."""
    if not source.question and not source.columns:
        key = first_field(MESSAGES, value)
        if key and (value[key] or not pairs.find_field_names(tuple(value)).questions):
            return messages.to_conversation(source, value, key)
        if extraction.is_extraction(value):
            return extraction.to_conversation(source, value)
    return pairs.to_conversation(source, value, file.triple_lines)


def reject_line(source: str, origin: str, reason: str, record: RawRecord) -> bytes:
    """A line of rejects.jsonl: the raw text up to 64 KB, and the hash of all of it."""
    encoded = record.text.encode(errors="surrogatepass")
    kept = record.text.encode(errors="backslashreplace")[:REJECT_BYTES].decode(errors="ignore")
    line = {"source": source, "origin": origin, "reason": reason, "raw": kept}
    line["sha256"] = record.sha256 or hashlib.sha256(encoded).hexdigest()
    return to_line(line) + b"\n"
