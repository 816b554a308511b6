"""Metrics by their written definitions."""

import math
import random

import pytest

from tuneline.formats.metrics import METRICS
from tuneline.scoring import labels
from tuneline.scoring.bleu import bleu_4
from tuneline.scoring.chrf import chrf
from tuneline.scoring.rouge import rouge
from tuneline.scoring.score import score
from tuneline.scoring.surface import distinct_2, exact_match, length_ratio, repetition
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


def test_chrf_by_hand():
    # Of the bigram and two characters of one and the other: unigrams 1/2 both ways, bigrams 0; longer ones are not there.
    assert chrf("甲乙", ["甲丙"]) == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert chrf("", ["甲"]) == 0
    assert chrf("甲乙丙", ["丁", "甲乙丙"]) == pytest.approx(100)


def test_exact_match_looks_past_width_case_and_space():
    assert exact_match("Ａbc ", ["甲", "abc"]) == 100
    assert exact_match("abcd", ["abc"]) == 0
    assert exact_match("", [""]) == 100


def test_length_ratio_by_hand():
    assert length_ratio("一二三", ["一二", "一二三四五六七八九"]) == 1.5
    assert length_ratio("一 二\n三", ["一二三"]) == 1
    assert length_ratio("", ["一二三"]) == 0
    assert length_ratio("一二", [""]) == 2


def test_distinct_and_repetition_by_hand():
    # Words a b a b a: bigrams ab ba ab ba, two of four are new; 4-grams abab baba.
    assert distinct_2("a b a b a") == 50
    assert repetition("a b a b a") == 0
    # a a a a a a: three 4-grams, all alike.
    assert repetition("a a a a a a") == pytest.approx(100 * 2 / 3)
    assert (distinct_2(""), repetition("")) == (0, 0)
    assert (distinct_2("a"), repetition("a")) == (100, 0)


def test_labels_by_hand():
    assert labels.predicted_and_actual(" 借贷 ", ["婚姻", "借贷"]) == ("借贷", "借贷")
    assert labels.labels("借贷", ["婚姻"]) == {"借贷": (0, 1, 0), "婚姻": (0, 0, 1)}
    assert labels.labels("借贷", ["借贷"]) == {"借贷": (1, 1, 1)}


def whole(prediction: str, references: list[str]) -> dict[str, float]:
    answer = {"prediction": prediction, "nll": 4.0, "characters": 2, "tokens": 4, "stopped_at_eos": True}
    return score(answer, references)


CORNERS = [
    "",
    " \n\t",
    "。。。！？",
    "好",
    "感冒多休息",
    "感冒" * 5000,
    "mix 混合 ١٢٣ 🙂 e\u0301",
    "\ufffd",
    "_" * 50,
    ":、;；",
]


@pytest.mark.parametrize("reference", CORNERS, ids=range(len(CORNERS)))
@pytest.mark.parametrize("prediction", CORNERS, ids=range(len(CORNERS)))
def test_no_text_is_too_strange(prediction, reference):
    values = whole(prediction, [reference])
    assert set(values) == {name for name, metric in METRICS.items() if not metric.corpus}
    assert all(math.isfinite(value) for value in values.values())
    for name in ("rouge_1", "rouge_2", "rouge_l", "bleu_4", "chrf"):
        assert -1e-9 <= values[name] <= 100 + 1e-6
        if not prediction.strip():
            assert values[name] == 0
    assert (values["nll_per_char"], values["nll_per_token"]) == (2, 1)


def test_two_hundred_random_pairs_agree_with_the_libraries_called_directly():
    """Words joined by spaces and cut at spaces again: what a user of the libraries would do with words of their own."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu, sentence_chrf

    class Spaces:
        def tokenize(self, text):
            return text.split()

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Spaces())
    rng = random.Random(3)
    known = words("患者出现发热咳嗽，应当多休息、多喝温水，必要时到医院就诊检查血常规。")
    for _ in range(200):
        said, right = (" ".join(rng.choices(known, k=rng.randint(1, 30))) for _ in range(2))
        ours = whole(said, [right])
        # Cut again, since jieba joins words that chance has put side by side only where no space is between.
        assert words(said) == said.split()
        theirs = scorer.score(right, said)
        assert ours["rouge_1"] == pytest.approx(100 * theirs["rouge1"].fmeasure, abs=1e-5)
        assert ours["rouge_2"] == pytest.approx(100 * theirs["rouge2"].fmeasure, abs=1e-5)
        assert ours["rouge_l"] == pytest.approx(100 * theirs["rougeL"].fmeasure, abs=1e-5)
        bleu = sentence_bleu(said, [right], tokenize="none", smooth_method="exp", use_effective_order=True)
        assert ours["bleu_4"] == pytest.approx(bleu.score, abs=1e-5)
        assert ours["chrf"] == pytest.approx(sentence_chrf(said, [right]).score, abs=1e-5)
