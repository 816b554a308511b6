"""Hostile XML documents, tables as text, and text that is nothing."""

import csv
import os
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.faults.raw_files import beside_good_rows, good_rows, whole

DIGITS = "9" * 4_301


def documents(raw: Path, hostile: str | bytes) -> str:
    """A folder of good documents with a hostile one."""
    folder = raw / "documents"
    folder.mkdir()
    for number, row in enumerate(good_rows()):
        text = (
            f"<QAPair><Question>{escape(row['question'])}</Question><Answer>{escape(row['answer'])}</Answer></QAPair>"
        )
        (folder / f"{number:02}.xml").write_text(f"<Document><QAPairs>{text}</QAPairs></Document>", encoding="utf-8")
    (folder / "15a.xml").write_bytes(hostile if isinstance(hostile, bytes) else hostile.encode())
    return "documents"


HEAD = "<Document><QAPairs><QAPair><Question>"
TAIL = "</Question><Answer>a</Answer></QAPair></QAPairs></Document>"


@beside_good_rows
def xml_nested_1000_deep(raw: Path) -> str:
    return documents(raw, HEAD + "<b>" * 1_000 + "x" + "</b>" * 1_000 + TAIL)


@beside_good_rows
def xml_nested_1000000_deep(raw: Path) -> str:
    return documents(raw, HEAD + "<b>" * 1_000_000 + "x" + "</b>" * 1_000_000 + TAIL)


@whole
def xml_of_pairs_nested_in_pairs(raw: Path) -> str:
    return documents(raw, "<Document>" + "<QAPair>" * 3_000 + "</QAPair>" * 3_000 + "</Document>")


@beside_good_rows
def xml_with_an_entity_of_4301_digits(raw: Path) -> str:
    return documents(raw, f"{HEAD}&#{DIGITS};{TAIL}")


@beside_good_rows
def xml_with_entities_that_multiply(raw: Path) -> str:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(12))
    return documents(raw, f"<!DOCTYPE x [{entities}]>{HEAD}&a11;{TAIL}")


@beside_good_rows
def xml_with_an_entity_from_a_file(raw: Path) -> str:
    return documents(raw, f'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>{HEAD}&a;{TAIL}')


@beside_good_rows
def xml_with_a_million_attributes(raw: Path) -> str:
    return documents(raw, HEAD + "<b " + " ".join(f'a{n}="1"' for n in range(1_000_000)) + "/>" + TAIL)


@beside_good_rows
def xml_that_never_ends(raw: Path) -> str:
    return documents(raw, HEAD + "x" * 10_000_000)


@beside_good_rows
def xml_of_another_encoding(raw: Path) -> str:
    return documents(raw, f'<?xml version="1.0" encoding="evil"?>{HEAD}好{TAIL}'.encode("gb18030"))


def table(raw: Path, *hostile: bytes) -> str:
    path = raw / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(good_rows())
    with path.open("ab") as file:
        file.write(b"".join(hostile))
    return "rows.csv"


@beside_good_rows
def table_with_a_quote_that_never_ends(raw: Path) -> str:
    return table(raw, b'"never,', b"x\n" * 3)


@beside_good_rows
def table_with_a_cell_of_100_mb(raw: Path) -> str:
    return table(raw, b"a," + b"b" * 100_000_000 + b"\n")


@beside_good_rows
def table_with_a_row_of_a_million_cells(raw: Path) -> str:
    return table(raw, b"a," * 1_000_000 + b"\n")


@beside_good_rows
def table_with_nul_bytes(raw: Path) -> str:
    return table(raw, b"a\x00b,c\x00\n")


@beside_good_rows
def table_with_an_entity_of_4301_digits(raw: Path) -> str:
    return table(raw, f"&#{DIGITS};,b\n".encode())


@beside_good_rows
def table_with_a_row_of_no_utf_8(raw: Path) -> str:
    return table(raw, b"\xff\xfe\xfa,b\n")


@whole
def table_with_a_header_of_a_million_columns(raw: Path) -> str:
    (raw / "rows.csv").write_text(",".join(f"c{n}" for n in range(1_000_000)) + "\n" + "1," * 999_999 + "1\n")
    return "rows.csv"


@whole
def table_with_one_name_for_all_columns(raw: Path) -> str:
    (raw / "rows.csv").write_text("question," * 50 + "answer\n" + "a," * 50 + "b\n")
    return "rows.csv"


@whole
def text_of_one_line_of_200_mb(raw: Path) -> str:
    (raw / "rows.txt").write_bytes(b"a" * 200_000_000)
    return "rows.txt"


@whole
def text_of_nul_bytes(raw: Path) -> str:
    (raw / "rows.txt").write_bytes(b"\0" * 10_000_000)
    return "rows.txt"


@whole
def text_of_nothing(raw: Path) -> str:
    (raw / "rows.jsonl").write_bytes(b"")
    return "rows.jsonl"


@whole
def text_of_a_mark_alone(raw: Path) -> str:
    (raw / "rows.jsonl").write_bytes(b"\xff\xfe")
    return "rows.jsonl"


@whole
def text_of_chance(raw: Path) -> str:
    (raw / "rows.jsonl").write_bytes(os.urandom(1_000_000))
    return "rows.jsonl"
