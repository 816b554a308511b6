"""The held-out set: stable, exact, and never given away by training."""

import random

import pytest

from tuneline.heldout import Exam, split
from tuneline.sources import Item


def item(question: str, answer: str = "答", source: str = "s", raw: str = "") -> Item:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Item(source, "f:1", "qa", question, messages, raw or f"{question}{answer}")


def many(count: int) -> list[Item]:
    generator = random.Random(3)
    return [item("".join(chr(generator.randrange(0x4E00, 0x9FA5)) for _ in range(30))) for _ in range(count)]


def test_exactly_as_many_as_asked_and_nothing_lost():
    items = many(200)
    parts = split([*items, items[0]], 50, seed=17)
    assert (len(parts.heldout), len(parts.train), len(parts.duplicates), len(parts.leaks)) == (50, 150, 1, 0)


def test_order_does_not_matter_and_few_change_when_rows_are_added():
    items = many(300)
    shuffled = random.Random(1).sample(items, len(items))
    first, second = split(items, 50, 17), split(shuffled, 50, 17)
    assert first.heldout == second.heldout
    assert set(map(id, first.train)) == set(map(id, second.train))
    grown = split([*items, *(item(f"新的问题之{n}" * 5) for n in range(30))], 50, 17)
    assert len({entry.question for entry in grown.heldout} & {entry.question for entry in first.heldout}) >= 40


def test_another_seed_draws_another_set():
    items = many(300)
    assert split(items, 50, 17).heldout != split(items, 50, 18).heldout


def test_of_duplicates_the_smallest_raw_hash_stays():
    twins = [item("问题一", raw="b"), item("问题一 ", raw="a"), item("问题二"), item("问题三")]
    parts = split(twins, 1, 17)
    kept = [entry for entry in (*parts.train, *parts.heldout, *parts.leaks) if entry.question.startswith("问题一")]
    assert [entry.raw_hash for entry in kept] == ["a"]
    assert [entry.raw_hash for entry in parts.duplicates] == ["b"]


@pytest.mark.parametrize(
    ("row", "leaks"),
    [
        ("我在北京租房合同没有到期房东要我马上搬走怎么办", True),
        ("我在北京租房合同没有到期房东要我立刻搬走怎么办？", True),
        ("标题：租房纠纷。我在北京租房合同没有到期房东要我马上搬走怎么办，请问律师", True),
        ("交通事故对方全责但是一直不肯赔钱应该怎么办呢", False),
        ("我在北京", False),
        ("你好", True),
        ("你好吗", False),
    ],
)
def test_what_leaks(row, leaks):
    exam = Exam(["我在北京租房合同没有到期房东要我马上搬走怎么办", "你好"])
    assert exam.leaks(row) is leaks


def test_leaks_leave_training_and_are_counted():
    items = many(60)
    parts = split(items, 20, 17)
    planted = item(parts.heldout[0].question[:-2] + "呢吗", answer="别的回答")
    again = split([*items, planted], 20, 17)
    assert planted in (*again.leaks, *again.heldout)
    assert planted not in again.train


def test_too_few_items_are_an_error():
    with pytest.raises(ValueError, match="data.heldout is 50, expected at most the 10 different questions"):
        split(many(10), 50, 17)
    with pytest.raises(ValueError, match="no training row is left"):
        split(many(10), 10, 17)
