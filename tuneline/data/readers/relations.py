"""Relation extraction as a table without a header: head, tail, relation, sentence, parted by tabs.

东方航空	上航	合并	东方航空AH股临时停牌传将与上航合并

A sentence comes once for each pair of its entities, so an item is a sentence with all its relations;
`unknown` says that there is none. (thunlp's FinRE and SanWen.)
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_lines

CELLS = 4
PROBED = 10
"""Rows from which the format is detected."""
NO_RELATION = ("unknown", "NA")


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format."""
    lines = (line for line in head.split("\n") if line.strip())
    rows = [line.rstrip("\r").split("\t") for line in islice(lines, PROBED)]
    return bool(rows) and all(len(row) == CELLS and row[0] in row[3] and row[1] in row[3] for row in rows[:-1] or rows)


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    """One raw record a sentence, at its first line; the lines of a sentence need not stand together."""
    sentences: dict[str, list[RawRecord]] = {}
    for line in read_lines(file):
        cells = line.text.rstrip("\r\n").split("\t")
        if not line.text.strip():
            continue
        if line.reason or len(cells) != CELLS:
            yield line._replace(reason=line.reason or f"{len(cells)}_cells_not_{CELLS}")
        else:
            sentences.setdefault(cells[3], []).append(line)
    for lines in sentences.values():
        yield RawRecord(lines[0].place, "\n".join(sorted(line.text.rstrip("\r\n") for line in lines)))


def parse(text: str) -> dict[str, Any]:
    rows = [line.split("\t") for line in text.split("\n")]
    triples = [[head, relation, tail] for head, tail, relation, _ in rows if relation not in NO_RELATION]
    return {"text": rows[0][3], "triples": triples}
