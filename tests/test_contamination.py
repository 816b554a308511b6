"""Which questions leak a held-out one, and that the index finds what the plain definition finds."""

import random

import pytest
from rapidfuzz.distance import Levenshtein

from tuneline.data.contamination import EDIT_SIMILARITY, NGRAM, NGRAM_OVERLAP, SHORT, HeldoutIndex, ngrams
from tuneline.formats.records import normalise

RENT = "我在北京租房合同没有到期房东要我马上搬走怎么办"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (RENT, "equal"),
        ("我在北京租房合同没有到期房东要我立刻搬走怎么办？", "contains"),
        ("标题：租房纠纷。" + RENT + "，请问律师", "contains"),
        ("我在南京租房合同没有到斯房东要我马卜搬走怎么办", "resembles"),
        ("交通事故对方全责但是一直不肯赔钱应该怎么办呢", None),
        ("我在北京", None),
        ("你好", "equal"),
        ("你好吗", None),
    ],
)
def test_what_leaks(row, why):
    (leak,) = HeldoutIndex([RENT, "你好"]).find_leaks([normalise(row)])
    assert (leak.why if leak else None) == why
    if leak:
        assert leak.item == (1 if row == "你好" else 0)
        assert NGRAM_OVERLAP <= leak.similarity <= 1


def plain(question: str, row: str) -> bool:
    """The definition, word for word."""
    if row == question:
        return True
    if len(row) < NGRAM or len(question) < NGRAM:
        return False
    shared = len(ngrams(question) & ngrams(row)) >= NGRAM_OVERLAP * len(ngrams(question))
    return shared or (len(row) < SHORT and Levenshtein.normalized_similarity(row, question) >= EDIT_SIMILARITY)


def test_a_batch_is_judged_as_the_definition_says():
    generator = random.Random(5)
    words = ["感冒", "发烧", "怎么办", "高血压", "能不能", "吃药", "三天了", "医生", "请问", "孩子", "，", "一直不好"]
    texts = ["".join(generator.choices(words, k=generator.randint(1, 30))) for _ in range(600)]
    questions, rows = texts[:40], texts[40:]
    rows += [text[: len(text) // 2] + "乙" + text[len(text) // 2 + 1 :] for text in questions]
    found = HeldoutIndex(questions).find_leaks(rows)
    expected = [any(plain(question, row) for question in questions) for row in rows]
    assert [leak is not None for leak in found] == expected
    assert 30 < sum(expected) < len(rows)
    for row, leak in zip(rows, found, strict=True):
        assert leak is None or plain(questions[leak.item], row)


def test_nothing_to_compare_with_leaks_nothing():
    assert HeldoutIndex([]).find_leaks(["很长的一个问题在这里"]) == [None]
    assert HeldoutIndex(["你好"]).find_leaks([]) == []
