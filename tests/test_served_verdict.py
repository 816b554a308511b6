"""What is compared with a served model, and the verdict by elimination: pure functions."""

import itertools

import pytest

from tuneline.formats.html import Text
from tuneline.served.answers import Agreement, AnswerPair, agreement, compare_answer
from tuneline.served.asking import is_cut
from tuneline.served.faults import FAULTS
from tuneline.served.lengths import LengthCauses, Lengths, compare_lengths
from tuneline.served.likelihoods import ItemNll, compare_nll
from tuneline.served.prompts import PromptDifference, PromptFormat, compare_prompt
from tuneline.served.results import sentences, status
from tuneline.served.verdict import Evidence, Verdict, diagnose

WORDS = ["<bos>", "<user>", "<model>", "<end>", "<sop>", "\n", " ", "<think>", "</think>", *"abcdefghij"]
CONTROL = frozenset(range(5))
BOS, USER, MODEL, END, SOP, LINE, SPACE, THINK, CLOSE, A = range(10)
QUESTION = [A, A + 1, A + 2]
OURS = [BOS, USER, LINE, *QUESTION, END, LINE, MODEL, LINE]
FORM = PromptFormat(CONTROL, ("<think>", "</think>"), lambda ids: "".join(WORDS[one] for one in ids))


@pytest.mark.parametrize(
    ("theirs", "causes"),
    [
        (OURS, ()),
        ([BOS, *OURS], ("second_bos",)),
        (OURS[1:], ("no_bos",)),
        ([*OURS[:3], A + 5, A + 6, LINE, LINE, *OURS[3:]], ("default_system_prompt",)),
        ([BOS, *OURS[:3], A + 5, A + 6, LINE, LINE, *OURS[3:]], ("second_bos", "default_system_prompt")),
        (OURS[:-2], ("no_generation_prompt",)),
        (OURS[:-1], ("whitespace",)),
        ([*OURS, SPACE], ("whitespace",)),
        ([*OURS, THINK, LINE], ("thinking",)),
        ([BOS, USER, LINE, *QUESTION, END, LINE, MODEL, LINE, A], ("other_template",)),
        ([BOS, USER, SPACE, *QUESTION, END, SPACE, MODEL, SPACE], ("whitespace",)),
        ([BOS, SOP, *QUESTION, SOP, MODEL, LINE], ("other_template",)),
        (OURS[4:], ("truncated_prompt",)),
    ],
)
def test_a_difference_of_prompts_has_a_name(theirs, causes):
    found = compare_prompt(OURS, theirs, FORM, has_system=False)
    assert found.causes == causes
    if causes:
        assert found.expected != found.got
        place = next(
            (n for n, (one, other) in enumerate(zip(OURS, theirs, strict=False)) if one != other),
            min(len(OURS), len(theirs)),
        )
        assert found.place == place


def test_prompts_of_families_without_or_with_two_tokens_at_the_beginning():
    plain = OURS[1:]
    assert compare_prompt(plain, [BOS, *plain], FORM, has_system=False).causes == ("added_bos",)
    two = [BOS, SOP, *OURS[1:]]
    assert compare_prompt(two, [BOS, SOP, *two], FORM, has_system=False).causes == ("second_bos",)
    assert compare_prompt(two, OURS[1:], FORM, has_system=False).causes == ("no_bos",)
    said, form = [BOS, *QUESTION, LINE], FORM._replace(bos=BOS)
    assert compare_prompt(said, [BOS, *said], form, has_system=False).causes == ("second_bos",)
    assert compare_prompt(said, said[1:], form, has_system=False).causes == ("no_bos",)


def test_another_cut_of_the_same_text_is_the_tokenizers():
    form = FORM._replace(decode=lambda ids: "".join({20: "ab", 21: "c"}.get(one, WORDS[one % 19]) for one in ids))
    assert compare_prompt(OURS, [*OURS[:3], 20, 21, *OURS[6:]], form, has_system=False).causes == ("other_tokenizer",)


def test_a_conversation_with_its_own_system_prompt_gets_no_default_one():
    theirs = [*OURS[:3], A + 5, LINE, *OURS[3:]]
    assert compare_prompt(OURS, theirs, FORM, has_system=True).causes == ("other_template",)


def lengths(items, plain=0, dialogue=0, system=0, begin=1, suffix=6, cut=False) -> Lengths:
    return Lengths(items, dialogue, plain, system, begin, suffix, cut)


@pytest.mark.parametrize(
    ("found", "causes"),
    [
        (lengths([0, 0]), ()),
        (lengths([1, 1], 1, 1, 1), ("second_bos", "whitespace")),
        (lengths([1, 1], 1, 1, 1, begin=0), ("added_bos", "whitespace")),
        (lengths([-1, -1], -1, -1, -1), ("no_bos", "whitespace")),
        (lengths([9, 9], 9, 9, 0), ("default_system_prompt",)),
        (lengths([1, 1], 1, 1, 0), ("default_system_prompt",)),
        (lengths([9, 9], 9, 9, None), ("default_system_prompt", "other_template")),
        (lengths([9, 9], 9, 9, 9), ("other_template",)),
        (lengths([-6, -6], -6, -6, -6), ("no_generation_prompt",)),
        (lengths([-4, -4], -4, -4, -4), ("other_template", "thinking")),
        (lengths([2, 2], 2, 4, 2), ("other_template", "other_tokenizer", "whitespace")),
        (lengths([0, 0, -700], cut=True), ("truncated_prompt",)),
    ],
)
def test_lengths_alone_leave_what_they_can_be(found, causes):
    assert compare_lengths(found).causes == causes
    assert compare_lengths(found).differ == bool(causes)


def test_prompts_are_cut_where_all_longer_ones_have_one_length():
    assert is_cut([(10, 10), (64, 64), (64, 700), (64, 900)])
    assert not is_cut([(10, 10), (64, 64)])
    assert not is_cut([(9, 10), (63, 64)])


def pair(ours, theirs, ended=True, finish="stop") -> AnswerPair:
    return AnswerPair(ours, theirs, ended, finish)


@pytest.mark.parametrize(
    ("given", "relation", "common"),
    [
        (pair([1, 2], [1, 2]), "equal", 2),
        (pair([], []), "equal", 0),
        (pair([1, 2], [1, 2, 3]), "runs_on", 2),
        (pair([1, 2], [1, 2, 3], ended=False, finish="length"), "equal", 2),
        (pair([1, 2, 3, 4, 5, 6], [1, 2], finish="length"), "cut", 2),
        (pair([1, 2, 3, 4], [1, 2], ended=False, finish="length"), "equal", 2),
        (pair([1, 2, 3], [1, 2]), "differs", 2),
        (pair([1, 2, 3], [1, 4, 3]), "differs", 1),
        (pair([], [4, 3]), "differs", 0),
    ],
)
def test_two_answers_are_equal_run_on_are_cut_or_differ(given, relation, common):
    assert compare_answer(given) == (relation, common)


def test_every_answer_is_counted_once():
    given = [pair(list(one), list(other)) for one, other in itertools.product(["ab", "abc", "b", ""], repeat=2)]
    found = agreement(given)
    assert found.equal + found.runs_on + found.cut + found.differs == found.items == 16
    assert len(found.first) == found.differs and found.ended == 16
    assert agreement([pair([1, 2], [1, 3])]).rate == 0.5
    assert agreement([pair([1, 2], [1, 2, 3]), pair([1, 2, 3], [1, 2], finish="length")]).rate == 2 / 6


def nll(*served: float, tuned: float = 10.0, base: float = 60.0):
    return compare_nll([ItemNll(one, tuned, base, 10) for one in served])


@pytest.mark.parametrize(
    ("served", "position"),
    [
        ((10.0, 10.0), "tuned"),
        ((10.2, 9.8), "rounding"),
        ((60.0, 59.5), "base"),
        ((25.0, 40.0), "between"),
        ((9.0, 12.0), "elsewhere"),
        ((70.0, 12.0), "elsewhere"),
        ((10.4, 10.4), "between"),
    ],
)
def test_likelihoods_have_a_place_beside_both_models(served, position):
    assert nll(*served).position == position


def test_models_that_hardly_differ_are_not_told_apart_by_rounding():
    assert nll(10.05, 9.95, base=10.05).position == "rounding"


EQUAL = Agreement(50, 50, 0, 48, 0, 0, [], 900)
SOME = EQUAL._replace(equal=46, differs=4, first=[9] * 4)
MANY = EQUAL._replace(equal=10, differs=40, first=[3] * 40)
FINE = (PromptDifference(()),) * 50
RIGHT, HALF, OFF = nll(10.0), nll(30.0), nll(9.0, 14.0)


def evidence(answers=EQUAL, prompts=FINE, lengths=None, nll=RIGHT, base_like=0.0, **more) -> Evidence:
    return Evidence(answers, prompts, lengths, nll, base_like, **more)


def named(given: Evidence) -> tuple[str, list[tuple[str, ...]]]:
    found = diagnose(given)
    return found.outcome, [finding.faults for finding in found.findings]


@pytest.mark.parametrize(
    ("given", "outcome", "faults"),
    [
        (evidence(), "equal", []),
        (evidence(prompts=None, nll=None), "equal", []),
        (evidence(SOME), "near", []),
        (evidence(SOME, None, LengthCauses(False), None), "near", []),
        (evidence(MANY), "fault", [("generation_defaults",)]),
        (evidence(MANY, nll=nll(10.2, 9.8)), "near", []),
        (evidence(MANY, nll=None, base_like=0.9), "fault", [("adapter_not_loaded",)]),
        (evidence(MANY, nll=nll(60.0)), "fault", [("adapter_not_loaded",)]),
        (evidence(MANY, nll=HALF), "different", [("adapter_scale", "quantized_weights", "other_adapter")]),
        (evidence(MANY, nll=HALF, tried={"adapter_scale": Text("x", "x")}), "fault", [("adapter_scale",)]),
        (evidence(MANY, nll=OFF, refuted=["adapter_scale", "quantized_weights"]), "fault", [("other_adapter",)]),
        (evidence(MANY, nll=OFF, revision="abc123"), "fault", [("other_adapter",)]),
        (evidence(MANY, nll=None, revision="abc123"), "fault", [("other_adapter",)]),
        (evidence(EQUAL._replace(equal=0, runs_on=48)), "fault", [("missing_stop",)]),
        (evidence(EQUAL._replace(equal=0, cut=50)), "fault", [("max_tokens",)]),
        (evidence(EQUAL._replace(equal=46, runs_on=4)), "fault", [("missing_stop",)]),
        (evidence(EQUAL._replace(equal=49, runs_on=1)), "near", []),
        (evidence(EQUAL._replace(equal=28, runs_on=2, differs=20)), "near", []),
        (evidence(EQUAL._replace(equal=48, cut=2)), "fault", [("max_tokens",)]),
        (evidence(MANY, unstable=3, again=5), "fault", [("sampling",)]),
        (evidence(SOME, unstable=1, again=4), "near", []),
        (evidence(MANY, thinking=40), "fault", [("thinking",)]),
        (evidence(prompts=(PromptDifference(("second_bos",), 1, "a", "b"),) * 50), "fault", [("second_bos",)]),
        (evidence(MANY, None, LengthCauses(False), None), "different",
         [("adapter_scale", "other_adapter", "quantized_weights", "generation_defaults")]),
        (evidence(EQUAL, None, LengthCauses(True, ("other_template", "whitespace")), None), "equal", []),
        (evidence(EQUAL, None, LengthCauses(True, ("second_bos", "whitespace"), 1), None), "different",
         [("second_bos", "whitespace")]),
        (evidence(SOME, nll=None, worse=True), "different",
         [("adapter_scale", "other_adapter", "quantized_weights", "generation_defaults")]),
    ],
)  # fmt: skip
def test_the_verdict_names_what_is_left(given, outcome, faults):
    assert named(given) == (outcome, faults)


def test_two_faults_are_both_named():
    wrong = (PromptDifference(("default_system_prompt",), 2, "a", "b"),) * 50
    found = named(evidence(EQUAL._replace(equal=0, runs_on=45, differs=5), wrong, nll=nll(60.0)))
    assert found == ("fault", [("default_system_prompt",), ("adapter_not_loaded",), ("missing_stop",)])


def test_every_fault_has_its_sentences_in_both_languages():
    for fault in FAULTS.values():
        assert all(text.en and text.zh for text in fault)
    found = diagnose(evidence(MANY, None, None, None)).findings[0]
    assert len(sentences(found)) == 1 + len(found.faults) and "One of:" in sentences(found)[0].en


@pytest.mark.parametrize(
    ("outcome", "equal", "worse", "least", "expected"),
    [
        ("equal", 50, [], None, 0),
        ("near", 46, [], None, 0),
        ("near", 46, ["rouge_l"], None, 1),
        ("near", 46, [], 48, 1),
        ("different", 20, [], None, 1),
        ("different", 48, [], 48, 0),
        ("fault", 50, [], 48, 1),
    ],
)
def test_the_exit_status_is_for_ci(outcome, equal, worse, least, expected):
    assert status(Verdict(outcome, []), equal, worse, least) == expected
