"""Over-long conversations: what each policy leaves, and that no answer is ever cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.tokenize.truncation import MIN_QUESTION, shorten

SYSTEM = {"role": "system", "content": "s" * 10}


def talk(*sizes: tuple[int, int]) -> list[dict]:
    messages = []
    for number, (question, answer) in enumerate(sizes):
        messages.append({"role": "user", "content": str(number % 10) * question})
        messages.append({"role": "assistant", "content": chr(97 + number % 26) * answer})
    return messages


def within(limit: int):
    return lambda messages: sum(len(message["content"]) for message in messages) <= limit


def sizes(messages: list[dict]) -> list[int]:
    return [len(message["content"]) for message in messages]


def test_dropping_leaves_nothing_and_counts_the_answers():
    result = shorten(talk((5, 5), (5, 5)), "drop", within(12))
    assert (result.parts, result.answers_lost) == ([], 2)


def test_turns_are_split_into_parts_that_fit_each_with_the_system_prompt():
    result = shorten([SYSTEM, *talk((5, 5), (5, 5), (5, 5))], "split_turns", within(30))
    assert [sizes(part) for part in result.parts] == [[10, 5, 5, 5, 5], [10, 5, 5]]
    assert result.answers_lost == 0


def test_an_exchange_that_fits_nowhere_is_lost_alone():
    result = shorten(talk((5, 5), (5, 50), (5, 5)), "split_turns", within(12))
    assert [sizes(part) for part in result.parts] == [[5, 5], [5, 5]]
    assert result.answers_lost == 1


def test_a_prompt_loses_its_oldest_exchanges_first():
    result = shorten([SYSTEM, *talk((5, 5), (5, 5), (5, 5))], "truncate_prompt", within(30))
    assert [sizes(part) for part in result.parts] == [[10, 5, 5, 5, 5]]
    assert result.parts[0][1]["content"] == "11111"
    assert result.answers_lost == 1


def test_then_the_end_of_its_last_question():
    result = shorten(talk((5, 5), (100, 20)), "truncate_prompt", within(60))
    assert [sizes(part) for part in result.parts] == [[40, 20]]
    assert shorten(talk((100, 55)), "truncate_prompt", within(60)).parts == []
    assert shorten(talk((4, 70)), "truncate_prompt", within(60)).parts == []


@pytest.mark.parametrize("policy", ["drop", "split_turns", "truncate_prompt"])
@given(
    shape=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=8),
    limit=st.integers(5, 120),
    with_system=st.booleans(),
)
def test_every_part_fits_and_no_answer_is_cut_or_kept_twice(policy, shape, limit, with_system):
    messages = [*([SYSTEM] if with_system else []), *talk(*shape)]
    result = shorten(messages, policy, within(limit))
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    kept = [message["content"] for part in result.parts for message in part if message["role"] == "assistant"]
    assert len(kept) + result.answers_lost == len(answers)
    remaining = iter(answers)
    assert all(answer in remaining for answer in kept), "in their order, each whole, none twice"
    for part in result.parts:
        assert within(limit)(part)
        assert part[-1]["role"] == "assistant"
        assert (part[0] == SYSTEM) == with_system
        assert all(len(message["content"]) >= min(MIN_QUESTION, 1) for message in part)
