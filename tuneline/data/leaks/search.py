"""Search for leaks: one pass over the spool that counts rare text, then a close look at the few rows that share it.

The workers only look things up; what they find is added up in the order of the rows, so their number changes nothing.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from tuneline.data.accounting import SourceCounts
from tuneline.data.config import Data
from tuneline.data.heldout import Split
from tuneline.data.leaks.contamination import HeldoutIndex, Leak, Numbers, closest_leaks
from tuneline.data.leaks.lookup import Lookup
from tuneline.data.spool import ComparedTexts, Spool, compared_texts, record_of
from tuneline.data.turns.scored_turn import compared_question, scored_records
from tuneline.data.workers import Workers
from tuneline.formats.records import Record, normalise, references, to_line
from tuneline.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINES = 2048
"""Rows that a worker takes at a time."""


class Shared(NamedTuple):
    """What of the index the workers need, out of files that all of them map."""

    questions: Lookup
    answers: Lookup
    of_dialogue: "NDArray[np.bool_]"
    """Of each held-out item, whether questions were asked before its own."""


class LookupJob(NamedTuple):
    """Neighbouring rows, for a worker."""

    folder: Path
    """In which the index is shared."""
    begin: int
    """Number of the first row."""
    lines: bytes
    """As of Spool.text_lines."""
    marks: "tuple[NDArray[Any], ...]"
    """Of each row whether it is kept, its part, its equal item, whether it repeats."""


class Found(NamedTuple):
    """What a batch of rows shares with the held-out items."""

    questions: "NDArray[np.int64]"
    answers: "NDArray[np.int64]"
    """Pairs of an n-gram and a row, as of Lookup.look_up."""
    equal: dict[int, int]
    """Row to the item whose question it asks."""


@dataclass
class Texts:
    """Texts and the row of each."""

    texts: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add(self, row: int, text: str) -> None:
        self.texts.append(text)
        self.rows.append(row)


def build_index(
    spool: Spool, keys: "NDArray[Any]", split: Split, params: Data, counts: list[SourceCounts]
) -> tuple[HeldoutIndex, list[bytes]]:
    """Index of the held-out items and of the rows to validate on, and the held-out records as lines.

    A held-out record ends with its scored answer; those that are cut are counted.
    """
    ids: list[str] = []
    items: list[ComparedTexts] = []
    rows: list[int] = []
    records: list[bytes] = []
    for row, scored in zip(split.heldout.tolist(), split.scored.tolist(), strict=True):
        line, source_counts = spool.record(row), counts[keys["source"][row]]
        whole = record_of(line)
        cut = scored_records(whole, params.heldout_turns, scored)
        source_counts.scored += len(cut)
        source_counts.scored_earlier += cut[-1]["id"] != whole["id"]
        for record in cut:
            texts = spool.texts(row, int(split.parts[row]))
            ids.append(record["id"])
            items.append(_heldout_texts(record, texts, is_alone=len(cut) == 1))
            rows.append(row)
            records.append(line if record is whole else to_line(record) + b"\n")
    heldout = len(items)
    for row in _validation_rows(keys, split, params):
        ids.append(record_of(spool.record(row))["id"])
        items.append(spool.texts(row, int(split.parts[row])))
        rows.append(row)
    return HeldoutIndex(ids, items, rows, heldout, int(split.kept.sum())), records


def _heldout_texts(record: dict[str, Any], whole: ComparedTexts, is_alone: bool) -> ComparedTexts:
    """What is compared of a held-out item: the question of its scored turn, and all its right answers."""
    questions = [normalise(message["content"]) for message in record["messages"] if message["role"] == "user"]
    # Of one item the compared question is known; of several each has its own.
    question = whole.question if is_alone else normalise(compared_question(record["messages"]))
    answers = [text for text in map(normalise, references(cast("Record", record))) if text] if whole.answers else []
    return ComparedTexts(question, questions[:-1], answers)


def _validation_rows(keys: "NDArray[Any]", split: Split, params: Data) -> list[int]:
    if params.validation_number is None:
        return []
    rows: list[int] = np.flatnonzero(split.kept & (keys["source"] == params.validation_number)).tolist()
    return rows


def find_leaks(spool: Spool, split: Split, index: HeldoutIndex, pool: Workers) -> dict[int, Leak]:
    """Leaks by row number. The index is shared in the spool's folder."""
    equal = _equal_items(split, index.rows)
    repeats = _repeats(split)
    leaks: dict[int, list[Leak]] = {}
    for found in _look_up_all(spool, index, split, equal, repeats, pool):
        index.questions.add(found.questions)
        index.answers.add(found.answers)
        leaks |= {row: [Leak(item, "equal", 1.0)] for row, item in found.equal.items()}
    candidates = _with_repeats(index.candidates(), split, repeats)
    candidates = {row: numbers for row, numbers in candidates.items() if row not in leaks}
    for row, numbers in candidates.items():
        leaks[row] = index.judge(spool.texts(row, int(split.parts[row])), numbers)
    heldout, validation = set(index.rows[: index.heldout]), set(index.rows[index.heldout :])
    others = {row: [leak for leak in found if index.rows[leak.item] != row] for row, found in leaks.items()}
    # Rows to validate on may resemble each other.
    others |= {row: [leak for leak in others[row] if leak.item < index.heldout] for row in validation & others.keys()}
    # Held-out items that resemble each other show a template, too.
    return {row: leak for row, leak in closest_leaks(others).items() if row not in heldout}


def _equal_items(split: Split, rows: list[int]) -> "NDArray[np.int64]":
    """For each row the held-out item whose question's hash it has, or -1; `rows` are those of the items."""
    hashes, items = np.unique(split.questions[rows], return_index=True)
    places = np.minimum(np.searchsorted(hashes, split.questions), len(hashes) - 1)
    return np.where(split.kept & (hashes[places] == split.questions), items[places], -1)


def _repeats(split: Split) -> "NDArray[np.bool_]":
    """Kept rows whose question an earlier kept row has, too: they make no text common."""
    rows = np.flatnonzero(split.kept)
    repeats = split.kept.copy()
    repeats[rows[np.unique(split.questions[rows], return_index=True)[1]]] = False
    return repeats


def _with_repeats(candidates: dict[int, Numbers], split: Split, repeats: "NDArray[np.bool_]") -> dict[int, Numbers]:
    """The candidates and the rows that repeat the question of one, by row."""
    by_question = {int(split.questions[row]): numbers.items for row, numbers in candidates.items() if numbers.items}
    hashes = np.array(list(by_question), dtype=np.uint64)
    for row in np.flatnonzero(repeats & np.isin(split.questions, hashes)).tolist():
        items, answers = candidates.get(row, Numbers(set(), set()))
        candidates[row] = Numbers(items | by_question[int(split.questions[row])], answers)
    return dict(sorted(candidates.items()))


def _look_up_all(
    spool: Spool, index: HeldoutIndex, split: Split, equal: "NDArray[np.int64]", repeats: "NDArray[np.bool_]",
    pool: Workers,
) -> Iterator[Found]:  # fmt: skip
    """What each batch of rows shares, in order, with few batches in flight."""
    with (
        tempfile.TemporaryDirectory(dir=spool.folder) as name,
        ProgressBar("convert: leaks", len(equal), "items") as bar,
    ):
        shared = Path(name)
        index.questions.lookup.share(shared / "questions")
        index.answers.lookup.share(shared / "answers")
        np.save(shared / "of_dialogue.npy", np.array([bool(item.earlier) for item in index.items]))

        def jobs() -> Iterator[LookupJob]:
            for begin in range(0, len(equal), LINES):
                rows = slice(begin, min(begin + LINES, len(equal)))
                marks = (split.kept[rows], split.parts[rows], equal[rows], repeats[rows])
                yield LookupJob(shared, begin, spool.text_lines(rows.start, rows.stop), marks)
                bar.update(rows.stop - rows.start)

        yield from pool.map(look_up, jobs())


@lru_cache(maxsize=1)
def _shared(folder: Path) -> Shared:
    return Shared(
        Lookup.shared(folder / "questions"), Lookup.shared(folder / "answers"), np.load(folder / "of_dialogue.npy")
    )


def look_up(job: LookupJob) -> Found:
    """What these rows share with the held-out items."""
    index = _shared(job.folder)
    questions, answers = Texts(), Texts()
    alone: list[bool] = []
    """Of each question text, whether it is the only one of its row."""
    equal: dict[int, int] = {}
    kept, parts, items, repeated = (mark.tolist() for mark in job.marks)
    texts_of_rows = compared_texts(job.lines, parts)
    for row, (texts, is_kept, item, repeats) in enumerate(
        zip(texts_of_rows, kept, items, repeated, strict=True), job.begin
    ):
        if not is_kept:
            continue
        # A later question of a dialogue may be a stock phrase: that it is equal says nothing.
        if item >= 0 and not texts.earlier and not index.of_dialogue[item]:
            equal[row] = item
        elif not repeats or item >= 0:
            questions.add(row, texts.question)
            alone.append(not texts.earlier)
        for text in texts.earlier:
            questions.add(row, text)
            alone.append(False)
        for text in texts.answers:
            answers.add(row, text)
    hits = index.questions.look_up(questions.texts, np.array(questions.rows, dtype=np.int64))
    for number, item in hits.equal.items():
        if alone[number] and not index.of_dialogue[item]:
            equal[questions.rows[number]] = item
    answer_hits = index.answers.look_up(answers.texts, np.array(answers.rows, dtype=np.int64))
    return Found(hits.pairs, answer_hits.pairs, equal)
