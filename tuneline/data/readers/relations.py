"""Relation extraction as a table without a header: head, tail, relation, sentence, parted by tabs.

东方航空	上航	合并	东方航空AH股临时停牌传将与上航合并

A sentence comes once for each pair of its entities, so an item is a sentence with all its relations;
`unknown` says that there is none. (thunlp's FinRE and SanWen.)
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from tuneline.data.readers.text import Piece, lines_of

CELLS = 4
PROBED = 10
NONE = ("unknown", "NA")


def claims(head: str) -> bool:
    rows = [line.rstrip("\r").split("\t") for line in islice((x for x in head.split("\n") if x.strip()), PROBED)]
    return bool(rows) and all(len(row) == CELLS and row[0] in row[3] and row[1] in row[3] for row in rows[:-1] or rows)


def pieces(file: TextIO) -> Iterator[Piece]:
    """One piece a sentence, at its first line; the lines of a sentence need not stand together."""
    sentences: dict[str, list[Piece]] = {}
    for line in lines_of(file):
        cells = line.raw.rstrip("\r\n").split("\t")
        if not line.raw.strip():
            continue
        if line.reason or len(cells) != CELLS:
            yield line._replace(reason=line.reason or f"{len(cells)}_cells_not_{CELLS}")
        else:
            sentences.setdefault(cells[3], []).append(line)
    for lines in sentences.values():
        yield Piece(lines[0].place, "\n".join(sorted(line.raw.rstrip("\r\n") for line in lines)))


def parse(raw: str) -> dict[str, Any]:
    rows = [line.split("\t") for line in raw.split("\n")]
    found = [(head, relation, tail) for head, tail, relation, _ in rows if relation not in NONE]
    return {"text": rows[0][3], "triples": [list(triple) for triple in found]}
