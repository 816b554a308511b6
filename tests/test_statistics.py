"""Intervals and paired tests: fixed by the data, and right on cases that can be worked out."""

import numpy as np
import pytest

from tuneline.evaluate import statistics
from tuneline.evaluate.statistics import (
    counted_interval,
    counted_paired,
    mean_interval,
    minimum_detectable_effect,
    paired,
    share_interval,
)
from tuneline.formats.metrics import METRICS
from tuneline.scoring.counts import micro_f1

HIGHER, LOWER = METRICS["rouge_l"].rank, METRICS["nll_per_char"].rank


def test_the_interval_covers_the_mean_and_is_the_same_every_time():
    values = list(np.random.default_rng(0).normal(5, 1, 50))
    interval = mean_interval(values)
    assert interval == mean_interval(values)
    assert interval["low"] < interval["value"] < interval["high"]
    assert interval["value"] == pytest.approx(np.mean(values), abs=1e-6)
    # The normal interval of the mean, within a tenth of its width.
    half = 1.96 * np.std(values) / np.sqrt(50)
    assert interval["high"] - interval["value"] == pytest.approx(half, rel=0.1)


def test_batches_change_nothing(monkeypatch):
    random = np.random.default_rng(3)
    values, others = random.normal(5, 1, (2, 300)).tolist()
    counts = random.integers(0, 2, (2, 300, 3, 3)).astype(float)
    found = []
    for size, batches in ((10**7, 1), (10**5, 31)):
        monkeypatch.setattr(statistics, "BATCH", size)
        statistics._drawn.cache_clear()
        statistics._swapped.cache_clear()
        assert len(statistics._batches(statistics.RESAMPLES, 300)) == batches
        of_counts = [counted_paired(*counts, micro_f1), counted_interval(counts[0], micro_f1)]
        found.append([paired(values, others, HIGHER), *of_counts])
    assert found[0] == found[1]


def test_values_without_spread_have_a_point_for_an_interval():
    assert mean_interval([2.0, 2.0]) == {"value": 2.0, "low": 2.0, "high": 2.0}


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"),
    [(25, 26, 81.1, 99.3), (50, 50, 92.9, 100), (0, 26, 0, 12.9), (0, 0, 0, 100)],
)
def test_a_share_of_items_has_the_wilson_interval(hits, items, low, high):
    found = share_interval([100.0] * hits + [0.0] * (items - hits))
    assert found["value"] == pytest.approx(100 * hits / items if items else 0, abs=1e-6)
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 100
    of_one = share_interval([1.0] * hits + [0.0] * (items - hits), 1.0)
    assert of_one == {key: pytest.approx(value / 100, abs=1e-6) for key, value in found.items()}


def test_the_interval_of_a_high_share_covers_it_where_a_bootstrap_does_not():
    rng = np.random.default_rng(13)
    draws = [(100.0 * (rng.random(50) < 0.96)).tolist() for _ in range(300)]
    wilson, bootstrap = (
        sum(found["low"] <= 96 <= found["high"] for found in map(interval, draws)) / 300
        for interval in (share_interval, mean_interval)
    )
    assert bootstrap < 0.9 < 0.93 < wilson


def test_a_clear_gain_and_no_gain():
    base = list(np.linspace(1, 2, 30))
    gain = paired(base, [value + 1 + 0.01 * n for n, value in enumerate(base)], HIGHER)
    assert gain["p"] < 0.001
    assert (gain["wins"], gain["ties"], gain["losses"]) == (30, 0, 0)
    assert gain["low"] > 0
    same = paired(base, base, HIGHER)
    assert (same["value"], same["p"], same["ties"]) == (0, 1, 30)


def test_lower_is_better_turns_wins_round_but_not_the_difference():
    result = paired([2.0, 2.0, 2.0], [1.0, 1.5, 3.0], LOWER)
    assert (result["wins"], result["losses"]) == (2, 1)
    assert result["value"] == pytest.approx(-0.166667, abs=1e-6)


def test_p_is_the_exact_share_of_sign_flips_for_few_items():
    # Of 2^3 sign patterns only the two extreme ones are as far from 0.
    assert paired([0, 0, 0], [1.0, 2.0, 3.0], HIGHER)["p"] == pytest.approx(2 / 8)


def test_the_interval_covers_the_truth_in_19_of_20_draws():
    """500 sets of 50 items from a skewed distribution whose mean is known."""
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(500):
        interval = mean_interval(rng.gamma(4.0, 5.0, 50).tolist())
        inside += interval["low"] <= 20 <= interval["high"]
    assert 0.92 <= inside / 500 <= 0.98


def test_p_is_below_a_twentieth_in_a_twentieth_of_draws_without_difference():
    rng = np.random.default_rng(8)
    below = 0
    for _ in range(500):
        base, tuned = rng.gamma(4.0, 5.0, (2, 50)).tolist()
        below += paired(base, tuned, HIGHER)["p"] < 0.05
    assert 0.03 <= below / 500 <= 0.07


def counts_of(shares, rng):
    """[items, 1, 3]: of four right items each, said with the chance of its item; one wrong one is said too."""
    hits = rng.binomial(4, shares)
    return np.stack([hits, hits + 1, np.full_like(hits, 4)], -1)[:, None].astype(float)


def test_the_interval_of_f1_covers_the_truth():
    rng = np.random.default_rng(9)
    inside = 0
    for _ in range(300):
        interval = counted_interval(counts_of(np.full(50, 0.5), rng), micro_f1)
        inside += interval["low"] <= 100 * 2 * 2 / (3 + 4) <= interval["high"]
    assert 0.91 <= inside / 300 <= 0.98


def test_p_of_f1_finds_a_difference_and_no_difference():
    rng = np.random.default_rng(10)
    below = 0
    for _ in range(200):
        shares = rng.beta(2, 2, 50)
        below += counted_paired(counts_of(shares, rng), counts_of(shares, rng), micro_f1)["p"] < 0.05
    assert 0.015 <= below / 200 <= 0.09
    base, tuned = counts_of(np.full(50, 0.3), rng), counts_of(np.full(50, 0.8), rng)
    found = counted_paired(base, tuned, micro_f1)
    assert found["p"] == pytest.approx(1e-4)
    assert found["low"] > 20
    mirrored = counted_paired(tuned, base, micro_f1)
    assert mirrored["value"] == -found["value"]
    assert (mirrored["wins"], mirrored["losses"]) == (found["losses"], found["wins"])


def test_the_smallest_difference_is_found_in_four_of_five_draws():
    rng = np.random.default_rng(11)
    seen = mean_interval((rng.permutation(np.linspace(-1, 1, 50)) * 3 / np.linspace(-1, 1, 50).std()).tolist())
    size = minimum_detectable_effect(seen["low"], seen["high"])
    found = 0
    for _ in range(300):
        found += paired([0.0] * 50, rng.normal(size, 3, 50).tolist(), HIGHER)["p"] < 0.05
    assert 0.7 <= found / 300 <= 0.92


def test_p_of_many_items_agrees_with_scipys():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(12)
    differences = rng.normal(0.4, 1, 40)
    ours = paired([0.0] * 40, differences.tolist(), HIGHER)["p"]
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=rng).pvalue
    assert ours == pytest.approx(theirs, abs=0.006)


def test_to_say_nothing_where_nothing_is_right_is_a_win():
    wrong = np.array([[[0.0, 1.0, 0.0]]] * 10 + [[[1.0, 1.0, 1.0]]] * 4)
    silent = np.array([[[0.0, 0.0, 0.0]]] * 10 + [[[1.0, 1.0, 1.0]]] * 4)
    found = counted_paired(wrong, silent, micro_f1)
    assert (found["wins"], found["ties"], found["losses"]) == (10, 4, 0)
    assert found["value"] > 0


def test_no_spread_shows_nothing():
    assert minimum_detectable_effect(0.0, 0.0) is None
