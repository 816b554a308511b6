"""Intervals and paired tests: fixed by the data, and right on cases that can be worked out."""

import numpy as np
import pytest

from tuneline.statistics import mean_interval, paired


def test_the_interval_covers_the_mean_and_is_the_same_every_time():
    values = list(np.random.default_rng(0).normal(5, 1, 50))
    interval = mean_interval(values)
    assert interval == mean_interval(values)
    assert interval["low"] < interval["value"] < interval["high"]
    assert interval["value"] == pytest.approx(np.mean(values), abs=1e-6)
    # The normal interval of the mean, within a tenth of its width.
    half = 1.96 * np.std(values) / np.sqrt(50)
    assert interval["high"] - interval["value"] == pytest.approx(half, rel=0.1)


def test_values_without_spread_have_a_point_for_an_interval():
    assert mean_interval([2.0, 2.0]) == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_a_clear_gain_and_no_gain():
    base = list(np.linspace(1, 2, 30))
    gain = paired(base, [value + 1 + 0.01 * n for n, value in enumerate(base)], higher_is_better=True)
    assert gain["p"] < 0.001
    assert (gain["wins"], gain["ties"], gain["losses"]) == (30, 0, 0)
    assert gain["low"] > 0
    same = paired(base, base, higher_is_better=True)
    assert (same["value"], same["p"], same["ties"]) == (0, 1, 30)


def test_lower_is_better_turns_wins_round_but_not_the_difference():
    result = paired([2.0, 2.0, 2.0], [1.0, 1.5, 3.0], higher_is_better=False)
    assert (result["wins"], result["losses"]) == (2, 1)
    assert result["value"] == pytest.approx(-0.166667, abs=1e-6)


def test_p_is_the_exact_share_of_sign_flips_for_few_items():
    # Of 2^3 sign patterns only the two extreme ones are as far from 0.
    assert paired([0, 0, 0], [1.0, 2.0, 3.0], higher_is_better=True)["p"] == pytest.approx(2 / 8)
