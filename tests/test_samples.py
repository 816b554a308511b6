"""Every file of the real public samples, by counts made with other parsers: nothing more is rejected than is broken."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pandas
import pytest

from tests.helpers.reading import read


def array(path: Path) -> int:
    return len(json.loads(path.read_text(encoding="utf-8")))


def lines(path: Path) -> int:
    return sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line.strip())


def table(path: Path) -> int:
    encoding = "gb18030" if "toyhom" in str(path) else "utf-8"
    return len(pandas.read_csv(path, dtype=str, encoding=encoding, keep_default_na=False))


def blocks(path: Path) -> int:
    return len(re.split(r"\n{3,}", path.read_bytes().decode("gb18030").strip()))


def sentences(path: Path) -> int:
    return pandas.read_csv(path, sep="\t", header=None, dtype=str, quoting=3, keep_default_na=False)[3].nunique()


def documents(path: Path) -> int:
    return sum(file.read_text(encoding="utf-8").count("<QAPair ") for file in path.rglob("*.xml"))


def files(path: Path) -> int:
    return sum(1 for file in path.iterdir() if file.is_file())


def none(path: Path) -> dict[str, int]:
    return {}


def without_answer(path: Path) -> dict[str, int]:
    """Dialogues of the smile folder in which nobody answers, or a turn is empty."""
    counts: Counter[str] = Counter()
    for file in path.iterdir():
        turns = json.loads(file.read_text(encoding="utf-8"))
        if any(not turn["content"].strip() for turn in turns):
            counts["empty_turn"] += 1
        elif all(turn["role"] == "client" for turn in turns):
            counts["no_answer"] += 1
    return dict(counts)


def with_calls_as_text(path: Path) -> dict[str, int]:
    """Rows of which a call was translated into prose: what its function gave follows an answer."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    speakers = [[turn["from"] for turn in row["conversations"]] for row in rows]
    return {"observation_without_call": sum(("gpt", "observation") in pairwise(names) for names in speakers)}


def misplaced_history(path: Path) -> dict[str, int]:
    """Rows of which the same question is also a row without history: their history is what came later."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    openings = {row["query"] for row in rows if not row["history"]}
    return {"history_after_the_question": sum(row["query"] in openings for row in rows if row["history"])}


def every_row(path: Path) -> dict[str, int]:
    """Rows of pre-training text: a response to no question."""
    return {"no_question_field": lines(path) if path.suffix == ".jsonl" else table(path)}


SAMPLES = {
    "chatglm3_format/one_record_from_README.jsonl": (1, lines, none),
    "chatglm_efficient_tuning/examples.json": (2, array, none),
    "chatglm_efficient_tuning/oaast_sft_zh.json": (350, array, none),
    "chatglm_efficient_tuning/self_cognition.json": (80, array, none),
    "cpsycoun/Data": (350, files, none),
    "deepke_instructkgc/RE/test.json": (12, lines, none),
    "deepke_instructkgc/RE/train.json": (12, lines, none),
    "deepke_instructkgc/SPO/test.json": (24, lines, none),
    "deepke_instructkgc/SPO/train.json": (24, lines, none),
    "disc_lawllm/mcq_mult_nje.csv": (241, table, none),
    "disc_lawllm/mcq_sing_cpa.csv": (105, table, none),
    "disc_lawllm/mcq_sing_nje.csv": (250, table, none),
    "disc_lawllm/qa_short_answer.json": (156, array, none),
    "emollm/data.json": (700, array, none),
    "emollm/swift_aiwei.jsonl": (1200, lines, misplaced_history),
    "lexeval/1_1.json": (200, lines, none),
    "lexeval/1_3.json": (140, lines, none),
    "lexeval/5_3.json": (125, lines, none),
    "lexeval/5_4.json": (248, lines, none),
    "lexeval/6_1.json": (200, lines, none),
    "llamafactory_demo/alpaca_zh_demo.json": (500, array, none),
    "llamafactory_demo/glaive_toolcall_zh_demo.json": (129, array, with_calls_as_text),
    "llamafactory_demo/identity.json": (91, array, none),
    "llamafactory_demo/v1_sft_demo.jsonl": (150, lines, none),
    "medquad": (388, documents, none),
    "ms_swift_formats/alpaca.csv": (3, table, none),
    "ms_swift_formats/alpaca.jsonl": (3, lines, none),
    "ms_swift_formats/alpaca2.csv": (3, table, none),
    "ms_swift_formats/chatml.jsonl": (3, lines, none),
    "ms_swift_formats/conversations.jsonl": (3, lines, none),
    "ms_swift_formats/sharegpt.jsonl": (3, lines, none),
    "ms_swift_formats/swift_multi.json": (3, array, none),
    "ms_swift_formats/swift_multi.jsonl": (3, lines, none),
    "ms_swift_formats/swift_pre.csv": (3, table, every_row),
    "ms_swift_formats/swift_pre.jsonl": (3, lines, every_row),
    "ms_swift_formats/swift_single.csv": (3, table, none),
    "ms_swift_formats/swift_single.jsonl": (3, lines, none),
    "pubmedqa/ori_pqal.json": (300, array, none),
    "smile_mechat/data": (330, files, without_answer),
    "thunlp_chinese_nre/FinRE/train.txt": (1363, sentences, none),
    "thunlp_chinese_nre/SanWen/test.txt": (351, sentences, none),
    "thunlp_chinese_nre/derived/spo_underscore.jsonl": (599, lines, none),
    "toyhom_medical/内科.txt": (800, blocks, none),
    "toyhom_medical/样例_内科5000-6000.csv": (3500, table, none),
    "zhongjing_cmtmedqa/CMtMedQA_test.json": (572, array, none),
    "zhongjing_cmtmedqa/huatuo26M_test.json": (2000, array, none),
}
"""File or folder: items in it, how to count them independently, and which of them are broken."""
SKIPPED = {"LICENSE.upstream", "LICENSE.txt", "README.md", "dataset_info.json", "data_README_zh.md"}


@pytest.mark.parametrize("name", SAMPLES)
def test_items_kept_and_rejected_are_what_another_parser_counts(samples, name):
    expected, count, broken = SAMPLES[name]
    path = samples / "data" / name
    result = read(path)
    assert result.counts.items == expected == count(path)
    assert Counter(result.reasons) == broken(path)
    assert len(result.records) == expected - sum(broken(path).values())


def test_no_file_is_forgotten_and_notes_are_skipped(samples):
    named = [samples / "data" / name for name in SAMPLES]
    folders = [folder for folder in sorted((samples / "data").iterdir()) if folder.is_dir()]
    assert len(folders) >= 15
    for folder in folders:
        result = read(folder)
        inside = [path for path in named if folder in (path, *path.parents)]
        assert result.counts.items == sum(SAMPLES[str(path.relative_to(samples / "data"))][0] for path in inside)
        for skipped in result.counts.skipped:
            assert Path(skipped).name in SKIPPED or skipped.endswith("README_excerpt.md")
        covered = [
            file for file in folder.rglob("*") if file.is_file() and any(p in (file, *file.parents) for p in inside)
        ]
        assert len(covered) + len(result.counts.skipped) >= sum(1 for file in folder.rglob("*") if file.is_file())


def test_real_text_is_read_as_it_is(samples):
    """Every answer of the table as pandas reads it, and a few items by heart: stage directions, emoji, long dialogues."""
    path = samples / "data/toyhom_medical/样例_内科5000-6000.csv"
    toyhom = read(path, {"repairs": []})
    frame = pandas.read_csv(path, dtype=str, encoding="gb18030", keep_default_na=False)
    assert [record["messages"][1]["content"] for record in toyhom.records] == frame["answer"].tolist()
    questions = [record["messages"][0]["content"] for record in toyhom.records]
    assert all(ask.strip() in text or ask.strip() == "无" for ask, text in zip(frame["ask"], questions, strict=True))
    assert all(title.strip() in text for title, text in zip(frame["title"], questions, strict=True))
    aiwei = read(samples / "data/emollm/swift_aiwei.jsonl")
    assert aiwei.contents()[0].startswith("（紧张地）艾薇医生")
    assert "💪" in aiwei.contents()[1]
    medical = read(samples / "data/zhongjing_cmtmedqa/CMtMedQA_test.json")
    assert max(len(record["messages"]) for record in medical.records) > 6
    emollm = read(samples / "data/emollm/data.json")
    assert all(record["messages"][0]["role"] == "system" for record in emollm.records)
