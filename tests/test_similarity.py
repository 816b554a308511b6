"""What makes two texts the same question, and what tells them apart."""

import pytest

from tuneline.data.leaks.similarity import numbers, overlap, parse
from tuneline.formats.records import normalise


def compare(first: str, second: str):
    return overlap(parse(normalise(first)), parse(normalise(second)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("第五百七十七条", {"577"}),
        ("第577条", {"577"}),
        ("第一千零五十条与第二百零九条", {"1050", "209"}),
        ("二〇一五年，三十九度，十二岁", {"2015", "39", "12"}),
        ("240.00元，3,000元和0.5克", {"240", "3000", "0.5"}),
        ("一万二千人，十片，三亿元", {"12000", "10", "300000000"}),
        ("一次吃几片，千万别停，十分难受，三高，五官科", set()),
        ("第一章", {"1"}),
    ],
)
def test_numbers(text, found):
    assert numbers(text) == found


def test_punctuation_and_order_do_not_count():
    parts = compare("头痛三天了，还发烧，应该吃什么药？", "应该吃什么药；头痛三天了 还发烧")
    assert (parts.first, parts.second, parts.told_apart) == (1.0, 1.0, False)


def test_a_changed_name_leaves_its_own_tokens_alone():
    parts = compare("张某在北京租房合同没有到期房东催搬走", "李某在南京租房合同没有到期房东催搬走")
    assert parts.first == pytest.approx(1 - 4 / 18), "in a short text three tokens make a run"
    rest = "并且不肯退还押金应该怎么办"
    parts = compare(f"张某在北京租房合同没有到期，{rest}", f"李某在南京租房合同没有到期，{rest}")
    assert parts.first == 1 - 2 / 26
    assert (parts.first_gap, parts.second_gap) == (1, 1)


def test_words_count_in_latin_script():
    parts = compare("How to diagnose lactose intolerance?", "How to prevent lactose intolerances?")
    assert parts.first == 0, "no three words in a row are shared"
    assert compare("How to diagnose Lactose intolerance?", "how to diagnose lactose intolerance in adults").first == 1


@pytest.mark.parametrize(
    ("first", "second", "told_apart"),
    [
        ("2岁儿童布洛芬吃多少", "3岁儿童布洛芬吃多少", True),
        ("民法典第五百七十七条", "民法典第577条", False),
        ("公司法第六条的内容", "合作社法第六条的内容", True),
        ("《公司法》第六条的内容", "公司法第六条的内容", False),
        ("《红楼梦》的作者是谁", "《水浒传》的作者是谁", True),
        ("2岁儿童布洛芬吃多少", "儿童布洛芬吃多少", False),
    ],
)
def test_numbers_and_names_are_decisive(first, second, told_apart):
    assert compare(first, second).told_apart is told_apart


def test_texts_without_a_token_cover_nothing():
    assert compare("？？", "头痛").first == 0
    assert compare("头", "头痛").first == 1
