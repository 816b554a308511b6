"""Records to rows of tokens, a batch at a time: encoded together, fitted to the limits, counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.records import Message, Record, without_reasoning
from tuneline.formats.token_file import TokenWriter
from tuneline.models.chat_format import Prompter, Reasoning
from tuneline.runtime.progress import ProgressBar
from tuneline.tokenize.config import Tokenize
from tuneline.tokenize.truncation import shorten

BATCH = 512
"""Records that are encoded together."""
PREVIEWED = 20
"""Rows of the mask preview, over all sources."""
STEP = 16
"""Tokens that one bar of the length histogram spans at first."""


@dataclass
class Summary:
    """metrics/tokenize.json. Each of convert's training records gives a row, several (split), or none (overlong)."""

    records: int = 0
    rows: int = 0
    rows_per_epoch: int = 0
    """Rows by the weights of their sources."""
    overlong: int = 0
    """Records of which no part fits."""
    truncated: int = 0
    """Records whose prompt was shortened."""
    split: int = 0
    """Records that became several rows, or lost an exchange that fits nowhere."""
    answers_lost: int = 0
    """Answers of records that are in no row."""
    tokens: int = 0
    supervised_tokens: int = 0
    """Tokens that carry loss."""
    longest: int = 0
    shortest_record: int | None = None
    """Tokens of the shortest record, whether it fits or not."""
    lengths: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """By source, records by tokens in steps of STEP, before the policy for over-long ones."""

    @property
    def supervised_fraction(self) -> float:
        return round(self.supervised_tokens / self.tokens, 4)

    def counts(self) -> dict[str, Any]:
        names = (
            "rows",
            "rows_per_epoch",
            "overlong",
            "truncated",
            "split",
            "answers_lost",
            "tokens",
            "supervised_tokens",
            "longest",
        )
        return {name: getattr(self, name) for name in names} | {"supervised_fraction": self.supervised_fraction}


class Preview:
    """Rows of the mask preview: some of every source, spread evenly over it."""

    def __init__(self, sources: dict[str, Any]) -> None:
        """`sources` are those of metrics/convert_details.json."""
        records = {name: counts["train"] for name, counts in sources.items() if counts["train"]}
        share = max(1, PREVIEWED // max(1, len(records)))
        self.every = {name: max(1, count // share) for name, count in records.items()}
        self.left = dict.fromkeys(records, share)
        self.seen = Counter[str]()
        self.rows: list[tuple[str, str, Encoded]] = []
        """(record id, source, row)."""

    def offer(self, record: Record, row: Encoded) -> None:
        """Keep the row if it is the source's next one to be shown."""
        source = record["source"]
        number = self.seen[source]
        self.seen[source] += 1
        if len(self.rows) < PREVIEWED and self.left.get(source, 0) and number % self.every[source] == 0:
            self.left[source] -= 1
            self.rows.append((record["id"], source, row))


class Draws(NamedTuple):
    """How often training takes a record's rows."""

    weights: Mapping[str, float]
    """By source."""
    replay: Callable[[Record], float]
    """As of replay_draws."""


def encode_all(
    records: Iterable[Record], total: int, prompter: Prompter, params: Tokenize, writer: TokenWriter, preview: Preview,
    draws: Draws,
) -> Summary:  # fmt: skip
    """Write every record's rows, with how often they are taken. Raises ValueError for a record that can't be trained on,
    and when no row is left.
    """
    summary, epoch = Summary(), 0.0
    with ProgressBar("tokenize", total, "records") as bar:
        for record, rows in encoded(records, prompter, params, summary):
            for kept in rows:
                weight = draws.weights.get(record["source"], 1.0)
                writer.add(kept, weight, summary.records - 1, draws.replay(record))
                summary.rows += 1
                epoch += weight
                summary.tokens += len(kept.input_ids)
                summary.supervised_tokens += len(kept.labels) - kept.labels.count(IGNORE_INDEX)
                summary.longest = max(summary.longest, len(kept.input_ids))
                preview.offer(record, kept)
            bar.update(1)
    summary.rows_per_epoch = round(epoch)
    if not summary.rows:
        raise ValueError(
            f"tokenize.max_tokens is {params.max_tokens} and the shortest of {summary.records} rows has "
            f"{summary.shortest_record}: no row is left to train on; raise max_tokens"
        )
    return summary


def encoded(
    records: Iterable[Record], prompter: Prompter, params: Tokenize, summary: Summary
) -> Iterator[tuple[Record, list[Encoded]]]:
    """Each record with its rows, in order; counts records, their lengths, and what the limits did.

    Raises ValueError for a record that can't be trained on.
    """
    with ThreadPoolExecutor(1) as thread:
        for batch, texts in _prefetch(thread, _batches(records), lambda batch: _encode_texts(batch, prompter, params)):
            for record, row in zip(batch, _training_rows(batch, texts, prompter, params), strict=True):
                summary.records += 1
                size = len(row.input_ids)
                summary.lengths[record["source"]][size // STEP] += 1
                summary.shortest_record = min(size, summary.shortest_record or size)
                yield record, [row] if _fits(row, params) else _shortened_rows(record, prompter, params, summary)


def _prefetch(
    thread: ThreadPoolExecutor, batches: Iterator[list[Record]], encode: Callable[[list[Record]], Any]
) -> Iterator[tuple[list[Record], Any]]:
    """Each batch with its encoded texts; the thread encodes one batch while the one before is used."""
    waiting: tuple[list[Record], Future[Any]] | None = None
    for batch in batches:
        following = (batch, thread.submit(encode, batch))
        if waiting:
            yield waiting[0], waiting[1].result()
        waiting = following
    if waiting:
        yield waiting[0], waiting[1].result()


def _encode_texts(batch: list[Record], prompter: Prompter, params: Tokenize) -> Any:
    """The batch's texts, encoded together; None when a record is at fault."""
    try:
        return prompter.encode(
            [_messages(record, params) for record in batch], [record.get("tools") for record in batch]
        )
    except ValueError:
        return None


def _training_rows(batch: list[Record], texts: Any, prompter: Prompter, params: Tokenize) -> list[Encoded]:
    """Training row of each record. Raises ValueError naming the record that is at fault."""
    try:
        if texts is not None:
            return prompter.rows(texts, params.mask, _reasoning(params))
    except ValueError:
        pass
    # One of them is at fault: find out which.
    return [_training_row(record, prompter, params) for record in batch]


def _training_row(record: Record, prompter: Prompter, params: Tokenize) -> Encoded:
    try:
        return prompter.training_row(_messages(record, params), params.mask, _reasoning(params), record.get("tools"))
    except ValueError as error:
        raise ValueError(f"record {record['id']} ({record['origin']}): {error}") from None


def _shortened_rows(record: Record, prompter: Prompter, params: Tokenize, summary: Summary) -> list[Encoded]:
    """Rows of a record that is too long, by tokenize.overlong; counts what became of it."""

    def fits(messages: Sequence[Message]) -> bool:
        # A part may begin with answers that are masked, and is as long as if they were not.
        unmasked = [message.copy() for message in messages]
        for message in unmasked:
            message.pop("learn", None)
        return _fits(prompter.training_row(unmasked, params.mask, _reasoning(params), record.get("tools")), params)

    result = shorten(_messages(record, params), params.overlong, fits)
    summary.answers_lost += result.answers_lost
    summary.overlong += not result.parts
    if result.parts:
        summary.truncated += params.overlong == "truncate_prompt"
        summary.split += params.overlong == "split_turns"
    if not result.parts:
        return []
    tools = [record.get("tools")] * len(result.parts)
    return prompter.training_rows(result.parts, params.mask, _reasoning(params), tools)


def _messages(record: Record, params: Tokenize) -> list[Message]:
    """What is trained on, by tokenize.reasoning."""
    return without_reasoning(record["messages"]) if params.reasoning == "drop" else record["messages"]


def _reasoning(params: Tokenize) -> Reasoning:
    return "mask" if params.reasoning == "mask" else "learn"


def _fits(row: Encoded, params: Tokenize) -> bool:
    if len(row.input_ids) > params.max_tokens:
        return False
    if params.max_prompt_tokens is None:
        return True
    return _prompt_tokens(row) <= params.max_prompt_tokens


def _prompt_tokens(row: Encoded) -> int:
    """Tokens before the last answer: the last stretch that is supervised."""
    place = len(row.labels)
    while place and row.labels[place - 1] != IGNORE_INDEX:
        place -= 1
    return place


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    remaining = iter(records)
    while batch := list(islice(remaining, BATCH)):
        yield batch
