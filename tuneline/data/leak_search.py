"""Search for leaks: one pass over the spool that counts rare text, then a close look at the few rows that share it.

The threads only look things up; what they find is added up in the order of the rows, so their number changes nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from tuneline.data.contamination import HeldoutIndex, Leak, Numbers, closest_leaks
from tuneline.data.heldout import Split
from tuneline.data.spool import ComparedTexts, compared_texts, record_line, record_of
from tuneline.data.workers import AHEAD, workers
from tuneline.formats.records import Record, normalise, references
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


def build_index(spool: IO[bytes], keys: "NDArray[Any]", split: Split) -> tuple[HeldoutIndex, list[bytes]]:
    """Index of the held-out items, and their records as lines."""
    lines = list(_lines_at(spool, keys, split.heldout.tolist()))
    ids, items = [], []
    for line, row in zip(lines, split.heldout, strict=True):
        texts = compared_texts(line, int(split.parts[row]))
        record = record_of(line)
        ids.append(record["id"])
        items.append(
            texts._replace(answers=list(map(normalise, references(cast("Record", record)))) if texts.answers else [])
        )
    return HeldoutIndex(ids, items, int(split.kept.sum())), [record_line(line) for line in lines]


def find_leaks(spool: IO[bytes], keys: "NDArray[Any]", split: Split, index: HeldoutIndex) -> dict[int, Leak]:
    """Leaks by row number."""
    equal = _equal_items(split)
    repeats = _repeats(split)
    leaks: dict[int, list[Leak]] = {}
    for found in _look_up_all(spool, index, split, equal, repeats):
        index.questions.add(found.questions)
        index.answers.add(found.answers)
        leaks |= {row: [Leak(item, "equal", 1.0)] for row, item in found.equal.items()}
    item_rows = split.heldout.tolist()
    candidates = _with_repeats(index.candidates(), split, repeats)
    candidates = {row: numbers for row, numbers in candidates.items() if row not in leaks}
    for (row, numbers), line in zip(candidates.items(), _lines_at(spool, keys, list(candidates)), strict=True):
        judged = index.judge(compared_texts(line, int(split.parts[row])), numbers)
        leaks[row] = [leak for leak in judged if item_rows[leak.item] != row]
    heldout = set(item_rows)
    # Held-out items that resemble each other show a template, too.
    return {row: leak for row, leak in closest_leaks(leaks).items() if row not in heldout}


def _equal_items(split: Split) -> "NDArray[np.int64]":
    """For each row the held-out item whose question's hash it has, or -1."""
    hashes, items = np.unique(split.questions[split.heldout], return_index=True)
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
    spool: IO[bytes], index: HeldoutIndex, split: Split, equal: "NDArray[np.int64]", repeats: "NDArray[np.bool_]"
) -> Iterator[Found]:
    """What each batch of rows shares, in order, with few batches in flight."""
    spool.seek(0)
    waiting: deque[Future[Found]] = deque()
    with ThreadPoolExecutor(workers()) as pool, ProgressBar("convert: leaks", len(equal), "items") as bar:
        for begin in range(0, len(equal), LINES):
            rows = slice(begin, begin + LINES)
            lines = list(islice(spool, LINES))
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


def _lines_at(spool: IO[bytes], keys: "NDArray[Any]", rows: list[int]) -> Iterator[bytes]:
    """Lines of the spool, by row number."""
    ends = np.cumsum(keys["bytes"], dtype=np.int64)
    for row in rows:
        size = int(keys["bytes"][row])
        spool.seek(int(ends[row]) - size)
        yield spool.read(size)


def row_reader(spool: IO[bytes], keys: "NDArray[Any]", split: Split) -> Callable[[int], ComparedTexts]:
    """What is compared of a row, by its number."""
    return lambda row: compared_texts(next(_lines_at(spool, keys, [row])), int(split.parts[row]))
