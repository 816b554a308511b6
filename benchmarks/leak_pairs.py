"""Labelled pairs of a held-out question and a training row, made from real samples: near-duplicates, and innocent rows.

Near-duplicates are a sample's questions changed in a known way. Innocent rows are its questions with another number,
article or title, rows that share a template, a schema or a subject with the held-out one, and farewells.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from rapidfuzz import fuzz, process

from tuneline.data.accounting import SourceCounts
from tuneline.data.batches import batch_jobs
from tuneline.data.config import Data, Source
from tuneline.data.normalize import read_batch
from tuneline.data.spool import record_of

CHANGED = (
    "data/toyhom_medical/样例_内科5000-6000.csv",
    "data/toyhom_medical/内科.txt",
    "data/zhongjing_cmtmedqa/huatuo26M_test.json",
    "data/disc_lawllm/mcq_sing_nje.csv",
    "data/disc_lawllm/mcq_mult_nje.csv",
    "data/disc_lawllm/mcq_sing_cpa.csv",
    "data/disc_lawllm/qa_short_answer.json",
    "data/lexeval/1_1.json",
    "data/lexeval/5_4.json",
    "data/llamafactory_demo/alpaca_zh_demo.json",
    "data/pubmedqa/ori_pqal.json",
)
"""Samples whose questions are changed."""
ALIKE = {
    "data/medquad": "same subject or question",
    "data/lexeval/6_1.json": "template",
    "cases/data/l01_prefix_in_query": "template",
    "cases/data/l02_suffix_in_query": "template",
    "cases/data/l03_kg_templated_questions": "same subject or question",
    "cases/data/l04_law_articles": "other article",
    "cases/data/l05_numbers": "other number",
    "cases/data/l09_one_source_lost_silently": "template",
    "cases/data/r24_text2sql_schema_prefix": "schema",
}
"""Samples of which every two different questions ask different things, and the kind that they are counted as."""
DIALOGUES = ("data/zhongjing_cmtmedqa/CMtMedQA_test.json", "data/cpsycoun/Data")
PER_SAMPLE = 12
"""Held-out items of a sample."""
CLAUSE = re.compile(r"[^，。？！；,.?!;\n]+[，。？！；,.?!;\n]*")
NAME = re.compile(
    r"[张李王赵刘陈杨黄周吴徐孙胡朱高林何郭马罗][某一二三四五六]?[某甲乙丙]?(?=[与和将把向因对在为的是、，某])|[甲乙丙丁](?=公司|[与和将把向因对在为、，])"
)
SURNAMES = ("欧阳", "许", "谢", "司马", "邓", "萧", "诸葛", "曹", "袁")
NEW_NAMES = {"甲": "庚", "乙": "辛", "丙": "壬", "丁": "癸"}
FAREWELL = re.compile("谢谢|感谢|再见")
TEMPLATES = (
    ("你是一名经验丰富的专家，请认真阅读下面的问题并给出准确、简洁的回答。问题：", ""),
    ("", "请用中文分点作答，说明理由，不要超过三百字。"),
)
STOPS = dict(zip("，。？！；,?!;", "；！，。，;.,.", strict=True))


@dataclass
class Sample:
    """Rows of a sample, held-out items beside them, and what the pairs between the two are."""

    name: str
    heldout: list[tuple[str, str]] = field(default_factory=list)
    """Question and answer."""
    rows: list[tuple[str, str]] = field(default_factory=list)
    openings: list[tuple[str, str]] = field(default_factory=list)
    """First question and answer of each dialogue, held-out ones first; none where the questions stand alone."""
    pairs: list[tuple[str, bool, int, int]] = field(default_factory=list)
    """(kind, whether the row leaks the item, number of the item, number of the row)."""

    def add(self, kind: str, leaks: bool, item: int, question: str, answer: str) -> None:
        """Add a row and its pair."""
        self.pairs.append((kind, leaks, item, len(self.rows)))
        self.rows.append((question, answer))


def read_questions(params: Data, raw: Path, path: str, draw: str) -> list[list[str]]:
    """The messages of each record of a sample, without the system prompt; a question once."""
    source = Source(path=path, question="QUESTION" if "pubmedqa" in path else None)
    section = params.model_copy(update={"sources": [source]})
    texts: dict[str, list[str]] = {}
    for job in batch_jobs(section, raw, [SourceCounts()]):
        for line in read_batch(job).records.splitlines():
            messages: list[str] = [turn["content"] for turn in record_of(line)["messages"] if turn["role"] != "system"]
            texts.setdefault(messages[-2], messages)
    return sorted(texts.values(), key=lambda messages: _order(draw + messages[-2]))


def make_samples(params: Data, root: Path, draw: str = "") -> Iterator[Sample]:
    """All samples with their pairs; the same ones each time for the same `draw`. `root` holds the folders data and cases."""
    for path in CHANGED:
        yield changed_sample(path, [(row[-2], row[-1]) for row in read_questions(params, root, path, draw)])
    for path in CHANGED[:3]:
        rows = [row[-2] for row in read_questions(params, root, path, draw)]
        yield from (templated_sample(path, rows, *template) for template in TEMPLATES)
    for path, kind in ALIKE.items():
        yield alike_sample(path, kind, [row[-2] for row in read_questions(params, root, path, draw)])
    for path in DIALOGUES:
        dialogues = [row for row in read_questions(params, root, path, draw) if len(row) > 2]
        farewells = [row for row in dialogues if len(row[-2]) <= FAREWELL_LENGTH and FAREWELL.search(row[-2])]
        sample = alike_sample(path, "farewell", [row[-2] for row in farewells])
        sample.openings = [(row[0], row[1]) for row in farewells]
        yield sample


FAREWELL_LENGTH = 30
"""Characters of the longest farewell; a longer one may ask something."""


def changed_sample(name: str, records: list[tuple[str, str]]) -> Sample:
    """Questions changed in every way that fits them."""
    sample = Sample(name, rows=records[PER_SAMPLE * 2 :])
    others = [question for question, _ in sample.rows]
    for question, answer in [record for record in records[: PER_SAMPLE * 2] if len(record[0]) >= SHORTEST][:PER_SAMPLE]:
        item = len(sample.heldout)
        sample.heldout.append((question, answer))
        for kind, (leaks, change) in CHANGES.items():
            changed = change(question, others[item % len(others)])
            if changed and changed != question:
                sample.add(kind, leaks, item, changed, f"第{len(sample.rows)}个回答")
        if len(answer) >= LONG_ANSWER:
            sample.add("same answer", True, item, others[-1 - item], answer)
        nearest = process.extractOne(question, others, scorer=fuzz.ratio, score_cutoff=0)
        if nearest and nearest[1] <= MOST_ALIKE:
            sample.pairs.append(("nearest other row", False, item, nearest[2]))
    return sample


SHORTEST = 14
LONG_ANSWER = 60
"""Characters of a question that is changed, and of an answer that is copied."""
MOST_ALIKE = 60
"""Edit similarity in percent up to which two questions of a sample surely ask different things."""


def templated_sample(name: str, questions: list[str], opening: str, ending: str) -> Sample:
    """Questions with the same opening or ending, each held-out one paired with the row nearest to it."""
    texts = [f"{opening}{question}{ending}" for question in questions]
    sample = Sample(f"{name}, {'opening' if opening else 'ending'}")
    sample.rows = [(text, f"第{number}个回答") for number, text in enumerate(texts[PER_SAMPLE:])]
    sample.heldout = [(text, f"第{number}个参考答案") for number, text in enumerate(texts[:PER_SAMPLE])]
    for item, question in enumerate(questions[:PER_SAMPLE]):
        nearest = process.extractOne(question, questions[PER_SAMPLE:], scorer=fuzz.ratio)
        if nearest[1] <= MOST_ALIKE:
            sample.pairs.append(("template", False, item, nearest[2]))
    return sample


def alike_sample(name: str, kind: str, questions: list[str]) -> Sample:
    """Questions as they are, each held-out one paired with the two rows nearest to it."""
    count = min(PER_SAMPLE, len(questions) // 4)
    sample = Sample(name)
    sample.rows = [(text, f"第{number}个回答") for number, text in enumerate(questions[count:])]
    sample.heldout = [(text, f"第{number}个参考答案") for number, text in enumerate(questions[:count])]
    for item, question in enumerate(questions[:count]):
        for _, _, row in process.extract(question, questions[count:], scorer=fuzz.ratio, limit=2):
            sample.pairs.append((kind, False, item, row))
    return sample


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def renamed(text: str, _other: str) -> str:
    names = sorted(set(NAME.findall(text)), key=len, reverse=True)
    for name, surname in zip(names, cycle(SURNAMES)):
        text = text.replace(name, NEW_NAMES.get(name, surname + name[1:]))
    return text


def reordered(text: str, _other: str) -> str:
    clauses = CLAUSE.findall(text)
    return (
        "，".join(clause.strip("，。？！；,.?!;\n ") for clause in (*clauses[1:], clauses[0]))
        if len(clauses) > 2
        else ""
    )


def trimmed(text: str, _other: str) -> str:
    """Without its shortest clause at an end, as long as two thirds are left."""
    clauses = CLAUSE.findall(text)
    if len(clauses) < 2:
        return ""
    kept = "".join(clauses[1:] if len(clauses[0]) < len(clauses[-1]) else clauses[:-1])
    return kept if 3 * len(kept) >= 2 * len(text) else ""


def repunctuated(text: str, _other: str) -> str:
    return " ".join("".join(STOPS.get(character, character) for character in text)) if _is_han(text) else text.upper()


def with_clause(text: str, other: str) -> str:
    clause = CLAUSE.findall(other)[0].strip("，。？！；,.?!;\n ")
    return f"{clause}，{text}" if _is_han(text) else f"{clause}. {text}"


def _is_han(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def with_other_number(text: str, _other: str) -> str:
    """Every number raised, where the text is short enough for them to be what it asks."""
    return re.sub(r"\d+(?!\d*[、.．)）:：])", lambda number: str(int(number[0]) + 3), text) if len(text) <= 120 else ""


def with_other_title(text: str, _other: str) -> str:
    """Another law in the place of the one that is named."""
    return re.sub("《[^》]+》", "《海商仲裁暂行条例》", text) if len(text) <= 120 else ""


CHANGES: dict[str, tuple[bool, Callable[[str, str], str]]] = {
    "renamed": (True, renamed),
    "reordered": (True, reordered),
    "trimmed": (True, trimmed),
    "other punctuation": (True, repunctuated),
    "one clause added": (True, with_clause),
    "other number": (False, with_other_number),
    "other article": (False, with_other_title),
}
"""Kind of a pair to whether it leaks, and the change of a question (given another one) that makes it; "" for none."""
