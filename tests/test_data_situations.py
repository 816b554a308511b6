"""Situations from public bug reports: foreign markup, encodings, missing values, copies; each with what it must give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.reading import section
from tuneline.data.convert import convert, summary_lines


class Converted(NamedTuple):
    counts: dict[str, Any]
    train: list[dict[str, Any]]
    heldout: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    removed: list[dict[str, Any]]

    @property
    def source(self) -> dict[str, Any]:
        (row,) = self.counts["sources"].values()
        return row

    @property
    def texts(self) -> list[str]:
        return [message["content"] for record in self.train + self.heldout for message in record["messages"]]

    def roles(self) -> set[str]:
        return {"".join(message["role"][0] for message in record["messages"]) for record in self.train + self.heldout}

    def said(self) -> str:
        return "\n".join(summary_lines(self.counts, Path("rejects.jsonl")))


def run(raw: Path, folder: Path, sources: list[dict], **changes: Any) -> Converted:
    files = [folder / f"{name}.jsonl" for name in ("train", "heldout", "rejects", "removed")]
    # What leaks is another matter.
    counts = convert(section(sources, **({"heldout": 2, "leak_policy": "keep"} | changes)), raw, *files)
    return Converted(counts, *([json.loads(line) for line in file.read_text().splitlines()] for file in files))


def reported(name: str, roles: str) -> Callable[[Callable[..., Converted]], None]:
    """The markup is told, and with the repair it becomes turns."""

    def check(convert_case: Callable[..., Converted]) -> None:
        plain = convert_case()
        assert plain.source["markup"] == {name: plain.source["items"]}
        assert name in plain.said()
        repaired = convert_case(repairs=["trim", "other_templates"])
        assert repaired.source["markup"] == {}
        assert repaired.source["repairs"]["other_templates"] == repaired.source["items"]
        assert repaired.roles() == {roles}
        words = ("[Round", "Human:", "Assistant:", "###", "INST]", "<s>", "</s>", "问：", "答：", "Below is")
        assert not [text for text in repaired.texts if any(word in text for word in words)]

    return check


def cp1252(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert set(result.source["encodings"].values()) == {"windows-1252"}
    assert result.counts["total"]["encodings"] == "windows-1252"
    assert "I can’t sleep and I’m anxious, what should I do?" in result.texts
    assert "windows-1252 (1 of its files)" in result.said()


def utf16(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert set(result.source["encodings"].values()) == {"utf-16-le"}
    assert result.source["rejected"] == 0
    assert "房东不退押金我该怎么维权" in result.texts


def mark_in_the_middle(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert result.source["repairs"]["byte_order_mark"] == 1
    assert result.source["rejected"] == 0
    assert not [text for text in result.texts if "\ufeff" in text]


def one_broken_line(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert result.source["rejected"] == 1
    assert result.rejects[0]["origin"].rpartition(":")[2].isdecimal()


def mixed(convert_case: Callable[..., Converted]) -> None:
    with pytest.raises(ValueError, match="rejected|mixes encodings"):
        convert_case()


def all_kept(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert result.source["items"] == result.source["train"] + 2
    assert result.roles() == {"uaua"} or max(map(len, result.roles())) > 4


def text_stays(convert_case: Callable[..., Converted]) -> None:
    plain, repaired = convert_case(), convert_case(repairs=["trim", "other_templates"])
    for result in (plain, repaired):
        assert all(
            text.endswith(("<|assistant|>\n好的<|user|>", "</s><|observation|>sop[gMASK]")) for text in result.texts
        )
        assert result.roles() == {"ua"}
        assert "other_templates" not in result.source["repairs"]


def copies(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    kept = {record["id"]: record["origin"] for record in result.train + result.heldout}
    assert result.source["duplicates"] == len(result.removed) > 0
    assert all(kept[row["kept"]] == row["kept_origin"] != row["origin"] for row in result.removed)


def missing_input(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert not [text for text in result.texts if "nan" in text]
    assert result.source["repairs"]["missing_value"] == result.source["items"]


def nothing_said(convert_case: Callable[..., Converted]) -> None:
    result = convert_case()
    assert result.source["answers"] == {"without_content": result.source["items"]}
    assert result.source["same_answers"] == {"无": result.source["items"]}
    assert "without content" in result.said()


CASES = {
    "e03_cp1252_csv": cp1252,
    "e04_utf16_no_bom": utf16,
    "e05_bom_in_middle": mark_in_the_middle,
    "r04_rounds_in_prompt": reported("[Round n]", "uaua"),
    "r06_human_assistant_text": reported("Human: Assistant:", "uaua"),
    "r14_one_gbk_line_in_utf8": one_broken_line,
    "r14b_half_gbk_half_utf8": mixed,
    "r15_drop": all_kept,
    "r15_last_answer": all_kept,
    "r15_split_turns": all_kept,
    "r15_truncate_prompt": all_kept,
    "r16_role_words_in_text": text_stays,
    "r17_upsample_by_copy": copies,
    "s01_alpaca": reported("### Instruction:", "ua"),
    "s01_inst": reported("[INST]", "ua"),
    "s01_s_wenda": reported("<s>问：", "ua"),
    "m07b_nan_text": missing_input,
    "m14_huatuo_infer_wu": nothing_said,
}


@pytest.mark.parametrize("name", CASES)
def test_a_situation_gives_what_its_note_says(samples, tmp_path, name):
    folder = samples / "cases/data" / name
    (file,) = folder.iterdir()
    CASES[name](lambda **changes: run(folder, tmp_path, [{"path": file.name}], **changes))
