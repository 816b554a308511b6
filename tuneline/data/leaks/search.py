"""Search for leaks: one pass over the spool that counts rare text, then a close look at the few rows that share it.

The threads only look things up; what they find is added up in the order of the rows, so their number changes nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from tuneline.data.accounting import SourceCounts
from tuneline.data.config import Data
from tuneline.data.heldout import Split
from tuneline.data.leaks.contamination import HeldoutIndex, Leak, Numbers, closest_leaks
from tuneline.data.spool import ComparedTexts, LineReader, compared_texts, record_line, record_of
from tuneline.data.turns.scored_turn import compared_question, scored_records
from tuneline.data.workers import AHEAD, workers
from tuneline.formats.records import Record, normalise, references, to_line
from tuneline.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINES = 2048
"""Lines of the spool that a thread takes at a time."""


class Found(NamedTuple):
    """What a batch of rows shares with the held-out items."""

    questions: "NDArray[np.int64]"
    answers: "NDArray[np.int64]"
    """Pairs of an n-gram and a row, as of RareGrams.look_up."""
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
    lines: LineReader, keys: "NDArray[Any]", split: Split, params: Data, counts: list[SourceCounts]
) -> tuple[HeldoutIndex, list[bytes]]:
    """Index of the held-out items and of the rows to validate on, and the held-out records as lines.

    A held-out record ends with its scored answer; those that are cut are counted.
    """
    ids: list[str] = []
    items: list[ComparedTexts] = []
    rows: list[int] = []
    records: list[bytes] = []
    for row, scored in zip(split.heldout.tolist(), split.scored.tolist(), strict=True):
        line, source_counts = lines.line(row), counts[keys["source"][row]]
        whole = record_of(line)
        cut = scored_records(whole, params.heldout_turns, scored)
        source_counts.scored += len(cut)
        source_counts.scored_earlier += cut[-1]["id"] != whole["id"]
        for record in cut:
            texts = compared_texts(line, int(split.parts[row]))
            ids.append(record["id"])
            items.append(_heldout_texts(record, texts, is_alone=len(cut) == 1))
            rows.append(row)
            records.append(record_line(line) if record is whole else to_line(record) + b"\n")
    heldout = len(items)
    for row in _validation_rows(keys, split, params):
        line = lines.line(row)
        ids.append(record_of(line)["id"])
        items.append(compared_texts(line, int(split.parts[row])))
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


def find_leaks(lines: LineReader, keys: "NDArray[Any]", split: Split, index: HeldoutIndex) -> dict[int, Leak]:
    """Leaks by row number."""
    equal = _equal_items(split, index.rows)
    repeats = _repeats(split)
    leaks: dict[int, list[Leak]] = {}
    for found in _look_up_all(lines, index, split, equal, repeats):
        index.questions.add(found.questions)
        index.answers.add(found.answers)
        leaks |= {row: [Leak(item, "equal", 1.0)] for row, item in found.equal.items()}
    candidates = _with_repeats(index.candidates(), split, repeats)
    candidates = {row: numbers for row, numbers in candidates.items() if row not in leaks}
    for row, numbers in candidates.items():
        leaks[row] = index.judge(compared_texts(lines.line(row), int(split.parts[row])), numbers)
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
    reader: LineReader, index: HeldoutIndex, split: Split, equal: "NDArray[np.int64]", repeats: "NDArray[np.bool_]"
) -> Iterator[Found]:
    """What each batch of rows shares, in order, with few batches in flight."""
    reader.spool.seek(0)
    waiting: deque[Future[Found]] = deque()
    with ThreadPoolExecutor(workers()) as pool, ProgressBar("convert: leaks", len(equal), "items") as bar:
        for begin in range(0, len(equal), LINES):
            rows = slice(begin, begin + LINES)
            lines = list(islice(reader.spool, LINES))
            marks = (
                split.kept[rows].tolist(),
                split.parts[rows].tolist(),
                equal[rows].tolist(),
                repeats[rows].tolist(),
            )
            waiting.append(pool.submit(_look_up, index, lines, begin, marks))
            bar.update(len(lines))
            if len(waiting) > AHEAD * workers():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look_up(index: HeldoutIndex, lines: list[bytes], begin: int, marks: tuple[list[Any], ...]) -> Found:
    """What these rows share; `marks` say of each whether it is kept, its part, its equal item, whether it repeats."""
    questions, answers = Texts(), Texts()
    alone: list[bool] = []
    """Of each question text, whether it is the only one of its row."""
    equal: dict[int, int] = {}
    for row, (line, is_kept, part, item, repeats) in enumerate(zip(lines, *marks, strict=True), begin):
        if not is_kept:
            continue
        texts = compared_texts(line, part)
        # A later question of a dialogue may be a stock phrase: that it is equal says nothing.
        if item >= 0 and not texts.earlier and not index.items[item].earlier:
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
        if alone[number] and not index.items[item].earlier:
            equal[questions.rows[number]] = item
    answer_hits = index.answers.look_up(answers.texts, np.array(answers.rows, dtype=np.int64))
    return Found(hits.pairs, answer_hits.pairs, equal)


def row_texts(lines: LineReader, split: Split) -> Callable[[int], ComparedTexts]:
    """What is compared of a row, by its number."""
    return lambda row: compared_texts(lines.line(row), int(split.parts[row]))
