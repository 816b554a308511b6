"""Duplicates and the draw of the held-out set, from hashes alone."""

import numpy as np
import pytest

from tuneline.data.heldout import apportion, compared_parts, deduplicate, draw, find_conflicts, question_hashes
from tuneline.data.spool import BOTH, INSTRUCTION, KEYS, QUESTION


def keys(count: int, **columns) -> np.ndarray:
    """Random keys, but for the columns that are passed."""
    generator = np.random.default_rng(3)
    made = np.zeros(count, dtype=KEYS)
    for name in ("raw", "both"):
        made[name] = generator.integers(1, 2**63, count)
    made["content"] = generator.integers(1, 2**63, (count, 2))
    for name, values in columns.items():
        made[name] = values
    return made


def test_of_duplicates_the_smallest_raw_hash_stays_wherever_it_stands():
    made = keys(6)
    made["content"][[1, 4, 5]] = made["content"][1]
    made["raw"][[1, 4, 5]] = [30, 10, 20]
    assert deduplicate(made).tolist() == [0, 4, 2, 3, 4, 4], "each by the row that stays"
    made["source"] = [0, 1, 0, 0, 0, 0]
    assert deduplicate(made, heldout_source=1).tolist() == [0, 1, 2, 3, 1, 1], "what the user holds out stays"
    half = keys(4)
    half["content"][:, 0] = 7
    assert deduplicate(half).tolist() == [0, 1, 2, 3], "the second half of the hash counts, too"


def test_an_instruction_that_repeats_is_no_part_of_the_question():
    made = keys(8, instruction=[5, 5, 5, 0, 1, 2, 3, 4], question=[1, 2, 3, 0, 9, 9, 9, 8])
    parts = compared_parts(made, np.ones(8, dtype=bool))
    assert parts.tolist() == [QUESTION] * 3 + [BOTH] + [INSTRUCTION] * 3 + [BOTH]
    questions = question_hashes(made, parts)
    assert questions[:3].tolist() == [1, 2, 3]
    assert questions[4:7].tolist() == [1, 2, 3]
    assert questions[3] == made["both"][3]
    # Where both repeat, the one that repeats more is the constant one; sources count together.
    repeating = keys(9, instruction=[5] * 9, question=[1, 1, 1, 2, 2, 2, 3, 3, 3], source=[0, 1, 2] * 3)
    assert compared_parts(repeating, np.ones(9, dtype=bool)).tolist() == [QUESTION] * 9


def test_conflicts_are_the_kept_items_with_the_same_question():
    questions = np.array([1, 1, 2, 3, 1], dtype=np.uint64)
    kept = np.array([True, True, True, True, False])
    assert find_conflicts(questions, kept).tolist() == [True, True, False, False, False]


def test_the_draw_is_exact_stratified_and_one_per_question():
    made = keys(300, source=[0] * 240 + [1] * 60)
    questions = made["both"].astype(np.uint64)
    questions[:3] = 0
    drawn, scored = draw(questions, made, np.ones(300, dtype=bool), 50)
    assert scored.tolist() == [1] * 50
    assert len(set(drawn.tolist())) == 50
    assert np.bincount(made["source"][drawn]).tolist() == [40, 10]
    assert (questions[drawn] == 0).sum() == 1
    assert (np.diff(questions[drawn].astype(object)) > 0).all()
    rest = np.setdiff1d(np.flatnonzero(made["source"] == 1), drawn)
    assert questions[rest].min() > questions[drawn][made["source"][drawn] == 1].max()


def test_order_does_not_matter_and_few_change_when_rows_are_added():
    made = keys(1000, source=[0] * 700 + [1] * 300)
    everything = np.ones(1000, dtype=bool)
    first = made["both"][draw(made["both"].astype(np.uint64), made, everything, 50)[0]]
    shuffled = made[np.random.default_rng(1).permutation(1000)]
    again = shuffled["both"][draw(shuffled["both"].astype(np.uint64), shuffled, everything, 50)[0]]
    assert first.tolist() == again.tolist()
    grown = np.concatenate([made, keys(100, both=np.random.default_rng(9).integers(1, 2**63, 100))])
    after = grown["both"][draw(grown["both"].astype(np.uint64), grown, np.ones(1100, dtype=bool), 50)[0]]
    assert len(set(after.tolist()) & set(first.tolist())) >= 40


def test_shares_are_whole_and_sum_up():
    assert apportion([240, 60], 50) == [40, 10]
    assert apportion([1, 1, 1], 2) == [1, 1, 0]
    assert apportion([999, 1], 50) == [50, 0]


def test_too_few_items_are_an_error():
    made = keys(10)
    with pytest.raises(ValueError, match="data.heldout is 50, expected at most the 10 different questions"):
        draw(made["both"].astype(np.uint64), made, np.ones(10, dtype=bool), 50)
