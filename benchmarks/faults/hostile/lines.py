"""Hostile JSON lines and arrays."""

import json
from pathlib import Path

from benchmarks.faults.raw_files import beside_good_rows, good_lines, whole

DIGITS = "9" * 4_301
LONG = "9" * 200_000


def lines(raw: Path, *hostile: str | bytes, name: str = "rows.jsonl") -> str:
    """Good lines with hostile ones in their middle."""
    good = [line.encode() for line in good_lines()]
    between = [one if isinstance(one, bytes) else one.encode("utf-8", "surrogatepass") for one in hostile]
    (raw / name).write_bytes(b"\n".join([*good[:15], *between, *good[15:]]) + b"\n")
    return name


def array(raw: Path, hostile: str) -> str:
    good = good_lines()
    (raw / "rows.json").write_text("[" + ",\n".join([*good[:15], hostile, *good[15:]]) + "]", encoding="utf-8")
    return "rows.json"


def pair(question: str, answer: str = "好") -> str:
    return json.dumps({"question": question, "answer": answer}, ensure_ascii=False)


@beside_good_rows
def line_with_a_number_of_4301_digits(raw: Path) -> str:
    return lines(raw, f'{{"question": {DIGITS}, "answer": "a"}}')


@beside_good_rows
def line_with_a_number_of_200000_digits(raw: Path) -> str:
    return lines(raw, f'{{"question": "a", "answer": {LONG}}}')


@beside_good_rows
def line_with_an_entity_of_4301_digits(raw: Path) -> str:
    return lines(raw, pair(f"a&#{DIGITS};b"))


@beside_good_rows
def line_with_a_hexadecimal_entity_without_end(raw: Path) -> str:
    return lines(raw, pair(f"a&#x{'f' * 100_000};b"))


@beside_good_rows
def line_with_a_float_beyond_all(raw: Path) -> str:
    return lines(raw, '{"question": 1e999999, "answer": -1e999999}', '{"question": NaN, "answer": Infinity}')


@beside_good_rows
def line_nested_100000_deep(raw: Path) -> str:
    return lines(raw, '{"question": ' + "[" * 100_000 + "]" * 100_000 + ', "answer": "a"}')


@beside_good_rows
def line_nested_900_deep(raw: Path) -> str:
    return lines(raw, '{"question": ' + "[" * 900 + "]" * 900 + ', "answer": "a"}')


@beside_good_rows
def line_of_objects_nested_900_deep(raw: Path) -> str:
    return lines(raw, '{"question": ' + '{"a":' * 900 + "1" + "}" * 900 + ', "answer": "a"}')


@beside_good_rows
def line_of_brackets(raw: Path) -> str:
    return lines(raw, "[" * 100_000)


@beside_good_rows
def line_of_200_mb(raw: Path) -> str:
    return lines(raw, pair("长" * 70_000_000))


@beside_good_rows
def line_of_a_million_keys(raw: Path) -> str:
    return lines(raw, json.dumps({f"k{n}": n for n in range(1_000_000)}))


@beside_good_rows
def line_with_lone_surrogates(raw: Path) -> str:
    return lines(raw, '{"question": "a\\ud800b", "answer": "\\udfff"}')


@beside_good_rows
def line_with_nul_bytes(raw: Path) -> str:
    return lines(raw, '{"question": "a\\u0000b", "answer": "a"}', b'{"question": "a\x00b", "answer": "a"}')


@beside_good_rows
def line_of_no_utf_8(raw: Path) -> str:
    return lines(raw, b'{"question": "\xff\xfe\xfa", "answer": "a"}')


@beside_good_rows
def line_cut_in_its_middle(raw: Path) -> str:
    return lines(raw, '{"question": "a", "ans')


@beside_good_rows
def line_with_a_text_for_messages(raw: Path) -> str:
    return lines(raw, '{"messages": "a"}', '{"messages": [1, null, {}]}', '{"messages": [[[]]]}', "7", '"a"', "null")


@beside_good_rows
def line_with_a_template_in_it(raw: Path) -> str:
    return lines(
        raw, pair("{{ ''.__class__ }} {% for a in range(99999999) %}{% endfor %}", "{question} %s \\1 <eos><bos>")
    )


@beside_good_rows
def line_of_spaces_that_a_pattern_could_loop_on(raw: Path) -> str:
    return lines(raw, pair(" " * 500_000 + "x", "\t\n" * 200_000 + "y"))


@beside_good_rows
def line_of_tags_that_a_pattern_could_loop_on(raw: Path) -> str:
    return lines(raw, pair("<" * 200_000, "</p" * 100_000 + "&" * 200_000))


@beside_good_rows
def line_of_one_character_a_million_times(raw: Path) -> str:
    return lines(raw, pair("啊" * 1_000_000, "哈" * 1_000_000))


@beside_good_rows
def line_of_brackets_of_markup(raw: Path) -> str:
    return lines(raw, pair("[" * 50_000 + "](" * 50_000, "<|im_start|>" * 30_000))


@beside_good_rows
def array_with_a_number_of_4301_digits(raw: Path) -> str:
    return array(raw, f'{{"question": {DIGITS}, "answer": "a"}}')


@beside_good_rows
def array_with_a_record_nested_100000_deep(raw: Path) -> str:
    return array(raw, '{"question": ' + "[" * 100_000 + "]" * 100_000 + ', "answer": "a"}')


@beside_good_rows
def array_with_a_record_of_100_mb(raw: Path) -> str:
    return array(raw, pair("a" * 100_000_000))


@whole
def array_that_never_ends(raw: Path) -> str:
    (raw / "rows.json").write_text("[" + ",".join(good_lines()), encoding="utf-8")
    return "rows.json"


@whole
def array_of_nothing_but_brackets(raw: Path) -> str:
    (raw / "rows.json").write_text("[" * 1_000_000)
    return "rows.json"
