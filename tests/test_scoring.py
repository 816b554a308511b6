"""Metrics by their written definitions."""

import pytest

from tuneline.scoring.bleu import bleu_4
from tuneline.scoring.rouge import rouge
from tuneline.scoring.words import words


def test_words_are_jieba_words_with_punctuation():
    assert words("感冒 多休息。") == ["感冒", "多", "休息", "。"]


@pytest.mark.parametrize("prediction", ["", "  ", "\n"])
def test_an_empty_prediction_scores_zero(prediction):
    assert rouge(prediction, ["感冒多休息"]) == {"rouge_1": 0, "rouge_2": 0, "rouge_l": 0}
    assert bleu_4(prediction, ["感冒多休息"]) == 0


def test_an_equal_prediction_scores_a_hundred():
    text = "感冒期间应当多休息，多喝温水。"
    assert rouge(text, [text]) == pytest.approx({"rouge_1": 100, "rouge_2": 100, "rouge_l": 100})
    assert bleu_4(text, [text]) == pytest.approx(100)
    assert bleu_4("多", ["多"]) == pytest.approx(100)


def test_rouge_by_hand():
    # 5 words against 4, 3 in common and in order; of 4 and 3 bigrams, 1 in common.
    scores = rouge("我 爱 吃 大 苹果", ["我 爱 红 苹果"])
    assert scores["rouge_1"] == pytest.approx(100 * 2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert scores["rouge_2"] == pytest.approx(100 * 2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert scores["rouge_l"] == pytest.approx(scores["rouge_1"])


def test_bleu_by_hand():
    # Precisions 4/5, 3/4, 2/3, 1/2 and no brevity penalty.
    value = bleu_4("甲 乙 丙 丁 戊", ["甲 乙 丙 丁 己"])
    assert value == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_the_best_of_several_references_counts():
    assert rouge("多休息", ["喝水", "多休息"])["rouge_l"] == pytest.approx(100)
