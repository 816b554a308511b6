"""Encodings told by what the text looks like, and asked for where it does not tell."""

import pytest

from tests.helpers.reading import read, write
from tuneline.data.config import Source

SIMPLIFIED = (
    "宝宝发烧三十九度要不要马上吃退烧药？先物理降温，超过38.5度再考虑退烧药。房东不退押金我该怎么维权，可以先协商。"
)
TRADITIONAL = (
    "寶寶發燒三十九度要不要馬上吃退燒藥？先物理降溫，超過38.5度再考慮退燒藥。房東不退押金我該怎麼維權，可以先協商。"
)
CANTONESE = "寶寶發燒咗三日，點算好？嚟醫院啦，唔使驚，佢哋話冇事。先物理降溫，超過38.5度再考慮退燒藥。"
ENGLISH = "I can’t sleep and I’m anxious — what should I do? It’s “normal”, don’t worry."
FRENCH = "J’ai mal à la tête depuis trois jours, que dois-je faire ? Buvez de l’eau, c’est fréquent."
GERMAN = "Ich habe Kopfschmerzen – was soll ich tun? Trinken Sie täglich genügend Wasser für längere Zeit."
SPANISH = "¿Qué debo hacer si tengo fiebre? Beba mucha agua y descanse; mañana llame al médico."


def jsonl(text: str, rows: int = 1) -> str:
    return f'{{"question": "{text}", "answer": "{text}"}}\n' * rows


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        (SIMPLIFIED, "utf-8", "utf-8"),
        (SIMPLIFIED, "utf-8-sig", "utf-8-sig"),
        (SIMPLIFIED, "gb18030", "gb18030"),
        (TRADITIONAL, "gb18030", "gb18030"),
        ("宝宝发烧怎么办", "gbk", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        ("寶寶發燒怎麼辦", "big5", "big5"),
        (CANTONESE, "big5hkscs", "big5hkscs"),
        (ENGLISH, "cp1252", "windows-1252"),
        (FRENCH, "cp1252", "windows-1252"),
        (GERMAN, "cp1252", "windows-1252"),
        (SPANISH, "cp1252", "windows-1252"),
        ("about 36.5 to 37.5 °C; a café latte is fine", "cp1252", "windows-1252"),
        (SIMPLIFIED, "utf-16", "utf-16"),
        (SIMPLIFIED, "utf-16-le", "utf-16-le"),
        (SIMPLIFIED, "utf-16-be", "utf-16-be"),
        (FRENCH, "utf-16-le", "utf-16-le"),
    ],
)
def test_the_encoding_is_told_and_recorded(tmp_path, text, encoding, name, rows):
    result = read(write(tmp_path / "a.jsonl", jsonl(text, rows), encoding))
    assert result.counts.encodings == {"a.jsonl": name}
    assert result.contents() == [text, text]


@pytest.mark.parametrize(
    ("text", "encoding", "complaint"),
    [
        (
            "風邪をひいたらどうすればいいですか。水をたくさん飲んで休んでください。",
            "shift_jis",
            "set encoding of this source",
        ),
        ("감기에 걸리면 어떻게 해야 하나요? 물을 많이 마시고 쉬세요.", "cp949", "set encoding of this source"),
        ("Что делать при простуде? Пейте больше воды и отдыхайте.", "cp1251", "is neither UTF-8, .* nor Windows-1252"),
        ("Co robić przy przeziębieniu? Proszę pić dużo wody, żeby wyzdrowieć.", "cp1250", "is neither UTF-8"),
    ],
)
def test_where_the_text_does_not_tell_the_user_is_asked_and_obeyed(tmp_path, text, encoding, complaint):
    path = write(tmp_path / "a.jsonl", jsonl(text, 3), encoding)
    with pytest.raises(ValueError, match=complaint):
        read(path)
    assert read(path, encoding=encoding).contents() == [text, text]


def test_an_encoding_must_be_known():
    with pytest.raises(ValueError, match="an encoding that Python knows, such as big5, not 'big6'"):
        Source(path="a.csv", encoding="big6")


def test_a_line_in_another_encoding_costs_itself(tmp_path):
    lines = [jsonl(f"{number}：{SIMPLIFIED}") for number in range(30)]
    for own, other in (("utf-8", "gb18030"), ("gb18030", "utf-8")):
        content = "".join(lines[:20]).encode(own) + lines[20].encode(other) + "".join(lines[21:]).encode(own)
        result = read(write(tmp_path / f"{own}.jsonl", content))
        assert [reject["origin"] for reject in result.rejects] == [f"{own}.jsonl:21"]
        assert set(result.reasons) <= {"broken_characters_in_user", "broken_json"}
        assert len(result.records) == 29


def test_a_record_of_an_array_in_another_encoding_costs_itself(tmp_path):
    rows = [f'{{"question": "{number}：{SIMPLIFIED}", "answer": "好的"}}' for number in range(30)]
    parts = [row.encode("utf-8" if number == 20 else "gb18030") for number, row in enumerate(rows)]
    result = read(write(tmp_path / "a.json", b"[" + b",\n".join(parts) + b"]"))
    assert [reject["origin"] for reject in result.rejects] == ["a.json:[20]"]
    assert len(result.records) == 29


def test_files_that_mix_encodings_are_refused(tmp_path):
    content = jsonl(SIMPLIFIED, 20).encode("gb18030") + jsonl(SIMPLIFIED, 10).encode()
    told = r"mixes encodings: 10 of 30 lines .* UTF-8 \(the first is line 21\), others are not \(the first is line 1\)"
    with pytest.raises(ValueError, match=told):
        read(write(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_marks_in_the_middle_are_no_text_and_counted(tmp_path, form):
    rows = [f'{{"question": "{number}：{SIMPLIFIED}", "answer": "好的"}}' for number in range(4)]
    halves = {
        "jsonl": ["\n".join(rows[:2]) + "\n", "\n".join(rows[2:]) + "\n"],
        "json": [f"[{','.join(rows[:2])}]\n", f"[{','.join(rows[2:])}]\n"],
        "csv": ["question,answer\n问题甲,好\n问题乙,好\n", "问题丙,好\n问题丁,好\n"],
    }[form]
    content = b"".join(half.encode("utf-8-sig") for half in halves)
    result = read(write(tmp_path / f"a.{form}", content))
    assert result.counts.repairs["byte_order_mark"] >= 1
    assert len(result.records) == 4
    assert "\ufeff" not in "".join(text for number in range(4) for text in result.contents(number))
