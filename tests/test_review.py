"""Blind review: votes that belong to texts, figures recovered from simulated raters, and a judge that prefers a place."""

import json
import multiprocessing
import random
from functools import cache
from math import comb
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.evaluated import evaluated, facts, metrics_of
from tests.helpers.fake_server import NOTHING, completion, fake_server, models
from tuneline.cli import compare
from tuneline.cli.app import app
from tuneline.endpoint.client import Reply
from tuneline.evaluate.own.metrics import question_of
from tuneline.evaluate.page.written import written_report
from tuneline.evaluate.paths import Inputs
from tuneline.evaluate.report import report
from tuneline.evaluate.review.agreement import alpha_interval
from tuneline.evaluate.review.figures import FIRST, SECOND, judge_figures, majority, review_figures, sign_test
from tuneline.evaluate.review.judge import judge_name, read_verdict
from tuneline.evaluate.review.pairs import Pair, answer_hash, pairs_of, rows_between, shown
from tuneline.evaluate.review.sentences import review_sentences
from tuneline.evaluate.review.votes import BAD, TIE, Vote, append, check_name, last_votes, read_votes
from tuneline.formats.metrics import METRICS
from tuneline.formats.records import write_jsonl
from tuneline.runtime.atomic import to_json
from tuneline.scoring.score import score

RUN = CliRunner()


def rows(count: int, same: int = 0) -> list[dict]:
    """Lines of predictions.jsonl, as far as a review reads them; the first `same` answers are alike."""
    return [
        {"id": f"s:{n}", "question": f"第{n}题？", "base": f"答{n}", "tuned": f"答{n}" if n < same else f"好答{n}"}
        for n in range(count)
    ]


def vote(pair: Pair, said: str | None, rater: str = "anna", comment: str = "", orders=None) -> Vote:
    first, second = pair.hashes
    one, other = sorted(pair.hashes)
    return Vote(pair.id, (one, other), {FIRST: first, SECOND: second}.get(said, said), rater, comment, orders)


def columns(*raters: str) -> list[list[str]]:
    """Votes by item of raters' lines of votes, in which a dot is none."""
    return [[one for one in item if one != "."] for item in zip(*raters, strict=True)]


@pytest.mark.parametrize(
    ("raters", "published"),
    [
        # Krippendorff 2011, examples A, B and C.
        (("0100000010", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbcccEddd".replace("E", "e")), 0.692),
        (("123321412...", "12332241250 3".replace("0 ", "."), ".33323422 51.".replace(" ", ""), "12332441251."), 0.743),
    ],
)
def test_alpha_is_as_published(raters, published):
    found = alpha_interval(columns(*raters))
    assert found["value"] == pytest.approx(published, abs=0.0005)
    assert found["low"] < found["value"] < found["high"]


CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "get_weather", "arguments": {"city": "北京"}}]}
FOUND = {"role": "tool", "content": "晴"}
DIALOGUE = [
    {"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}, {"role": "user", "content": "天气？"},
    CALL, FOUND, {"role": "assistant", "content": "晴天"},
]  # fmt: skip
HELLO = (("user", "你好"), ("assistant", "您好"))
CALLED = (("assistant", 'get_weather(city="北京")'), ("tool", "晴"))

BEFORE = (*HELLO, ("user", "天气？"), *CALLED, ("assistant", "晴天"))


@pytest.mark.parametrize(
    ("messages", "task", "earlier"),
    [
        (DIALOGUE, "tools", HELLO),
        (DIALOGUE, "qa", HELLO + CALLED),
        ([*DIALOGUE, {"role": "user", "content": "明天呢？"}, CALL], "tools", BEFORE),
        (DIALOGUE[:2], "qa", ()),
        ([{"role": "system", "content": "简短"}, *DIALOGUE[:2]], "qa", (("system", "简短"),)),
    ],
)  # fmt: skip
def test_what_was_said_before_ends_where_the_question_begins(messages, task, earlier):
    question = question_of({"task": task, "messages": messages})
    (pair,) = pairs_of([rows(1)[0] | {"question": question}], {"s:0": messages})
    assert pair.earlier == earlier
    assert pairs_of(rows(1), {})[0].earlier == ()


def test_alpha_of_votes_that_say_nothing_is_none():
    assert alpha_interval([]) is None
    assert alpha_interval([["a"], ["b"]]) is None, "no item has two votes"
    assert alpha_interval([["a", "a"], ["a", "a"]]) is None, "chance agrees as much"
    assert alpha_interval([["a", "a"], ["b", "b"]])["value"] == 1


@pytest.mark.parametrize(("sure", "raters"), [(0.9, 2), (0.5, 3)])
def test_agreement_of_simulated_raters_is_recovered(sure, raters):
    """A rater sees what is right with probability `sure`, else votes at random: alpha is its square."""
    chance = random.Random(5)
    pairs = pairs_of(rows(400))
    said = [FIRST, SECOND, TIE, BAD]
    votes = []
    for pair in pairs:
        right = chance.choice(said)
        for rater in range(raters):
            votes.append(vote(pair, right if chance.random() < sure else chance.choice(said), f"rater-{rater}"))
    found = review_figures(pairs, votes)["people"]
    assert found["alpha"]["value"] == pytest.approx(sure**2, abs=0.06)
    assert found["alpha"]["low"] <= sure**2 <= found["alpha"]["high"]
    assert (found["raters"], found["items"], sum(found["votes"].values())) == (raters, 400, 400 * raters)


def test_the_win_rate_of_simulated_raters_is_recovered_and_its_interval_is_over_items():
    chance = random.Random(7)
    pairs = pairs_of(rows(400))
    better = {pair.id: chance.random() < 0.7 for pair in pairs}
    one = [vote(pair, SECOND if better[pair.id] else FIRST) for pair in pairs]
    found = review_figures(pairs, one)["people"]
    assert found["win_rate"]["value"] == pytest.approx(70, abs=5)
    assert found["win_rate"]["low"] < 70 < found["win_rate"]["high"]
    assert found["p"] < 0.001 and found["wins"] + found["losses"] == 400
    # Ten raters who say the same know no more than one.
    many = [ballot._replace(rater=f"r{n}") for ballot in one for n in range(10)]
    assert review_figures(pairs, many)["people"]["win_rate"] == found["win_rate"]


def test_ties_are_half_and_a_tie_of_raters_is_one():
    pairs = pairs_of(rows(4, same=1))
    a, b, c = (pair for pair in pairs if pair.differs)
    votes = [vote(a, SECOND), vote(a, FIRST, "ben"), vote(b, TIE), vote(c, BAD), vote(b, SECOND, "ben")]
    found = review_figures(pairs, votes)
    assert (found["items"], found["alike"], found["other_votes"]) == (3, 1, 0)
    people = found["people"]
    assert people["win_rate"]["value"] == pytest.approx((50 + 75 + 50) / 3)
    assert (people["wins"], people["ties"], people["losses"], people["p"]) == (1, 2, 0, 1.0)
    assert people["votes"] == {"first": 1, "tie": 1, "bad": 1, "second": 2}
    assert (majority([FIRST, SECOND]), majority([FIRST, FIRST, SECOND])) == (TIE, FIRST)


def test_the_sign_test_is_exact():
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0
    assert sign_test(9, 1) == sign_test(1, 9) == round(2 * (1 + comb(10, 1)) / 2**10, 6)


def test_the_last_vote_counts_and_one_taken_back_does_not(tmp_path):
    pair, other = pairs_of(rows(2))
    for said in (FIRST, SECOND, None, TIE):
        append(tmp_path, vote(pair, said))
    append(tmp_path, vote(other, FIRST))
    append(tmp_path, vote(other, None))
    votes = read_votes(tmp_path)
    assert len(votes) == 6, "nothing is ever overwritten"
    assert [one.vote for one in last_votes(votes).values()] == [TIE]
    assert review_figures([pair, other], votes)["people"]["items"] == 1


def test_a_vote_belongs_to_two_texts_and_to_no_run():
    before, after = rows(3), rows(3)
    after[0]["tuned"] = "另一个回答"
    votes = [vote(pair, SECOND) for pair in pairs_of(before)]
    found = review_figures(pairs_of(after), votes)
    assert (found["people"]["items"], found["other_votes"]) == (2, 1)
    # The same texts as two revisions' answers, the other way round.
    turned = [row | {"base": row["tuned"], "tuned": row["base"]} for row in before]
    assert review_figures(pairs_of(turned), votes)["people"]["win_rate"]["value"] == 0
    assert review_figures(pairs_of(rows(3, same=3)), votes) is None
    assert review_figures(pairs_of(before), []) is None


def test_sides_are_drawn_by_item_and_rater_and_the_same_every_time():
    pairs = pairs_of(rows(400))
    swapped = {rater: [shown(pair, rater) != pair.answers for pair in pairs] for rater in ("anna", "ben")}
    for drawn in swapped.values():
        assert 150 < sum(drawn) < 250
    assert 150 < sum(a == b for a, b in zip(*swapped.values(), strict=True)) < 250
    assert swapped["anna"] == [shown(pair, "anna") != pair.answers for pair in pairs]
    assert {shown(pairs[0], rater) for rater in "abcdefgh"} == {pairs[0].answers, pairs[0].answers[::-1]}
    # Which model is base does not show in the sides.
    turned = pairs_of([row | {"base": row["tuned"], "tuned": row["base"]} for row in rows(400)])
    assert [shown(pair, "anna") for pair in turned] == [shown(pair, "anna") for pair in pairs]
    assert [pair.id for pair in pairs] != [row["id"] for row in rows(400)]


def test_two_revisions_share_questions_or_are_refused():
    first, second = rows(3), rows(4)
    second[1]["question"] = "别的问题？"
    assert [row["id"] for row in rows_between(first, second)] == ["s:0", "s:2"]
    with pytest.raises(ValueError, match="no held-out question in common"):
        rows_between(first, [])


def test_a_line_holds_what_is_said_and_nothing_of_the_machine(tmp_path):
    pair = pairs_of(rows(1))[0]
    append(tmp_path / "reviews", vote(pair, SECOND, comment="更完整\n也更短"))
    (line,) = (tmp_path / "reviews/anna.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "id": "s:0", "answers": sorted(pair.hashes), "vote": answer_hash("好答0"), "rater": "anna", "comment": "更完整\n也更短",
    }  # fmt: skip


def test_what_a_killed_server_left_is_no_vote_and_no_error(tmp_path):
    a, b, c = pairs_of(rows(3))
    for pair in (a, b):
        append(tmp_path, vote(pair, FIRST))
    path = tmp_path / "anna.jsonl"
    whole = path.read_bytes()
    for cut in (1, 20, len(whole.splitlines()[1])):
        path.write_bytes(whole[:-cut])
        kept = len(read_votes(tmp_path))
        assert kept == (2 if cut == 1 else 1)
        append(tmp_path, vote(c, SECOND))
        assert [one.id for one in read_votes(tmp_path)] == [a.id, b.id, c.id][:kept] + [c.id][kept - 3 :]
    path.write_bytes(b"{\n" + whole)
    with pytest.raises(ValueError, match=r"anna\.jsonl, line 1: no JSON"):
        read_votes(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vote": "f" * 16}, "expected one of the two hashes, 'tie', 'bad' or null"),
        ({"answers": ["a", "b"]}, "expected two hashes"),
        ({"rater": "ben"}, "rater is 'ben', expected 'anna', as the file is called"),
        ({"orders": "first"}, "orders are first"),
        ({"comment": None}, "comment is null, expected text"),
    ],
)
def test_a_line_that_is_no_vote_is_named(tmp_path, change, says):
    append(tmp_path, vote(pairs_of(rows(1))[0], TIE))
    path = tmp_path / "anna.jsonl"
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(ValueError, match="line 2: ") as error:
        read_votes(tmp_path)
    assert says in str(error.value)


def voting(folder: Path, number: int) -> None:
    for pair in pairs_of(rows(25)):
        append(folder, vote(pair, SECOND, "anna", comment=f"{number}: {'长' * 500}"))


def test_votes_of_two_processes_are_whole_lines(tmp_path):
    """The same rater in two tabs of two servers."""
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=voting, args=(tmp_path, number)) for number in range(2)]
    for one in started:
        one.start()
    for one in started:
        one.join(20)
        assert one.exitcode == 0
    assert len(read_votes(tmp_path)) == 50


def test_names_of_raters_are_names_of_files():
    assert [check_name(name) for name in ("anna", " 王医生 ", "a.b-c", "x")] == ["anna", "王医生", "a.b-c", "x"]
    for name in ("", "../x", "a/b", ".hidden", "judge-x", "Judge-x", "a b", "x" * 41, "a\n", "-"):
        with pytest.raises(ValueError, match="expected 1 to 40 letters"):
            check_name(name + ("" if name != "a\n" else "b"))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("[[A]]", FIRST), ("Both say … so [[ b ]]", SECOND), ("[[A]] at first, but [[TIE]]", TIE), ("**BAD**", BAD),
        ("B.", SECOND), ("Answer A is better", ""), ("", ""), ("[[C]]", ""), ("AB", ""),
    ],
)  # fmt: skip
def test_a_verdict_is_read_or_not_there(text, verdict):
    assert read_verdict(Reply(text, "stop", None, None)) == verdict


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with answers, in which `tuneline review` is called."""
    monkeypatch.chdir(tmp_path)
    Path("metrics").mkdir()
    write_jsonl(Path("metrics/predictions.jsonl"), rows(12, same=2))
    return tmp_path


def judged(verdict, *more: str):
    """What `tuneline review --judge` printed; `verdict` gives a reply to a prompt."""

    def served(asked):
        if asked.path == "/v1/chat/completions":
            return completion(verdict(asked.body["messages"][-1]["content"]))
        return {"/v1/models": models("org/judge")}.get(asked.path, NOTHING)

    with fake_server(served) as url:
        return RUN.invoke(app, ["review", "--judge", f"{url}/v1", "--model", "org/judge", *more])


def test_a_judge_that_always_prefers_the_first_answer_is_flagged(project):
    said = judged(lambda prompt: "[[A]]")
    assert said.exit_code == 0, said.output
    warning = "WARNING: judge-org-judge always prefers the first answer it sees, whatever it says. Position bias:"
    assert f"{warning} it prefers the first answer in both orders in 10 of 10 items, the second in 0" in said.stdout
    assert "10 verdicts, shown when people have voted" in said.stdout
    assert "wins" not in said.stdout, "never shown alone"
    votes = read_votes(Path("reviews"))
    assert {one.vote for one in votes} == {TIE} and {one.orders for one in votes} == {(FIRST, FIRST)}
    for pair in pairs_of(rows(12, same=2))[:6]:
        if pair.differs:
            append(Path("reviews"), vote(pair, SECOND))
    said = judged(lambda prompt: pytest.fail("it has been asked"))
    assert "agrees with people on 0 of" in said.stdout and "WARNING: judge-org-judge always" in said.stdout


def test_a_judge_that_reads_is_shown_beside_people(project):
    pairs = [pair for pair in pairs_of(rows(12, same=2)) if pair.differs]
    for number, pair in enumerate(pairs):
        append(
            Path("reviews"), vote(pair, FIRST if number == 0 else SECOND, comment="只差一个字" if number == 0 else "")
        )
    asked = []

    def prefers_the_longer(prompt):
        asked.append(prompt)
        first, second = prompt.split("<answer_A>")[1].split("<answer_B>")
        return "[[A]]" if "好" in first else "[[B]]" if "好" in second else "?"

    said = judged(prefers_the_longer)
    assert said.exit_code == 0, said.output
    assert len(asked) == 20, "each in both orders"
    assert "judge-org-judge: agrees with people on 9 of 10 items" in said.stdout
    assert "tuned wins 100.0 %" in said.stdout and "WARNING" not in said.stdout
    assert "Blind review by 1 rater: tuned wins 90.0 %" in said.stdout
    found = review_figures(pairs, read_votes(Path("reviews")))
    (judge,) = found["judges"]
    assert (judge["shown_first"], judge["shown_second"], judge["unsteady"], judge["always"]) == (0, 0, 0, None)
    assert found["people"]["comments"] == [{"id": pairs[0].id, "vote": "first", "comment": "只差一个字"}]


def test_a_reply_without_a_verdict_is_asked_for_again_and_a_refusal_is_a_sentence(project):
    said = judged(lambda prompt: "I can't say.")
    assert "10 replies of org/judge held no verdict; the next run asks for them again" in said.stdout
    assert "no vote on these answers yet" in said.stdout
    assert "tuned" not in judged(lambda prompt: "[[TIE]]").stdout.replace("tuneline", "")
    assert {one.vote for one in last_votes(read_votes(Path("reviews"))).values()} == {TIE}
    assert judge_name("a/b c\n") == "judge-a-b-c" and judge_name("///") == "judge-model"


def test_orders_that_disagree_are_ties():
    pair = pairs_of(rows(1))[0]
    ballot = vote(pair, TIE, "judge-x", orders=(SECOND, TIE))
    found = judge_figures("judge-x", [ballot], {ballot: TIE}, {})
    assert (found["unsteady"], found["always"], found["with_people"], found["preference"]) == (1, None, None, None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "b", "c"], "3 revisions are given, expected at most 2"),
        (["--model", "x"], "--model and --api-key-env are of a judge"),
        (["--judge", "http://127.0.0.1:9"], "--judge is given without --model"),
        (["--host", "0.0.0.0"], "TUNELINE_PASSWORD is unset"),
    ],
)
def test_a_call_that_can_not_be_is_a_sentence(project, monkeypatch, words, says):
    monkeypatch.delenv("TUNELINE_PASSWORD", raising=False)
    said = RUN.invoke(app, ["review", *words])
    assert said.exit_code != 0 and says in str(said.exception) + said.output
    write_jsonl(Path("metrics/predictions.jsonl"), rows(3, same=3))
    assert "there is nothing to choose" in str(RUN.invoke(app, ["review"]).exception)
    Path("metrics/predictions.jsonl").unlink()
    assert "run `dvc repro evaluate`" in str(RUN.invoke(app, ["review"]).exception)


@cache
def some() -> list[dict]:
    """Six labelling items and six questions."""
    return evaluated()[18:30]


@pytest.fixture(scope="module")
def metrics():
    return metrics_of(some(), facts())


def test_the_report_shows_votes_when_there_are_some(metrics):
    def reviewed_report(votes: list[Vote]) -> str:
        return report(metrics, some(), facts(), review_figures(pairs_of(some()), votes))

    pairs = [pair for pair in pairs_of(some()) if pair.differs]
    assert "Blind review" not in reviewed_report([])
    votes = [
        vote(pair, FIRST if n % 4 == 0 else SECOND, rater, "<b>好</b>")
        for n, pair in enumerate(pairs)
        for rater in ("anna", "ben")
    ]
    page = reviewed_report(votes)
    for text in ("Blind review", "盲评", "2 raters, 12 of 12 items", "75.0&nbsp;%", "&lt;b&gt;好&lt;/b&gt;"):
        assert text in page
    assert "anna" not in page, "names stay in reviews/"
    alone = reviewed_report([vote(pairs[0], SECOND, "judge-m", orders=(FIRST, FIRST))])
    assert "1 verdicts, shown when people have voted" in alone and "always prefers the first answer" in alone
    assert "tuned wins" not in alone
    both = reviewed_report([*votes, *(vote(pair, SECOND, "judge-m", orders=(FIRST, SECOND)) for pair in pairs)])
    assert "says the same as most people on 9 of 12 items" in both


def test_the_stage_writes_the_page_of_files_alone(tmp_path, monkeypatch, metrics):
    monkeypatch.chdir(tmp_path)
    learned, told = some(), facts()
    details = metrics | {"model": {"config": told.base, "params": told.params, "notice": told.notice}}
    write_jsonl(Path("predictions.jsonl"), learned)
    for name, content in (("details", details), ("training", told.training | {"supervised_tokens": 9})):
        Path(f"{name}.json").write_text(to_json(content), encoding="utf-8")
    for name, lines in zip(("base_general", "general"), told.general, strict=True):
        write_jsonl(Path(f"{name}.jsonl"), lines)
    Path("counts.json").write_text(
        to_json(told.counts | {"total": {"items": 1, "train": 1, "heldout": 0, "rejected": 0}})
    )
    Path("loss.csv").write_text("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in told.curve))
    paths = ("details.json", "predictions.jsonl", "general.jsonl", "base_general.jsonl", "training.json", "counts.json")
    inputs = Inputs(*map(Path, (*paths, "loss.csv", "reviews")))
    page = written_report(inputs)
    # Files have their keys in the order of the alphabet, which versions of metrics have not on the page.
    sorted_params, counts, training = (
        json.loads(to_json(one)) for one in (told.params, told.counts, told.training | {"supervised_tokens": 9})
    )
    assert page == report(details, learned, told._replace(params=sorted_params, counts=counts, training=training))
    append(Path("reviews"), vote(pairs_of(learned)[0], SECOND))
    assert "Blind review" in written_report(inputs)


def test_compare_tells_of_votes_on_these_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = {"nll": 8.0, "characters": 5, "tokens": 4, "stopped_at_eos": True}
    sides = []
    for name, side in (("HEAD", "tuned"), ("exp-a", "base")):
        lines = [
            {"id": row["id"], "task": "qa", "question": row["question"], "references": ["多休息。"], "tuned": row[side]}
            | {"scores": {"tuned": score(answer | {"prediction": row[side]}, ["多休息。"])}}
            for row in rows(6)
        ]
        versions = {name: metric.version for name, metric in METRICS.items()}
        sides.append(compare.Revision(name, {line["id"]: line for line in lines}, versions))
    assert compare.against(*sides)["review"] is None
    # Of the page with base and tuned model: the same texts, whosever they were.
    for pair in pairs_of(rows(6))[:4]:
        append(tmp_path / "reviews", vote(pair, SECOND))
    found = compare.against(*sides)
    text = compare.to_text(found, 1, markdown=False)
    assert "Blind review by 1 rater: exp-a wins 0.0 %" in text and "of 4 items" in text
    assert "Agreement of raters: not known, one has voted." in text
    assert next(iter(review_sentences(found["review"], "HEAD", "exp-a"))) in text
