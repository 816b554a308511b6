"""Data that grows: slices of the held-out set that no later arrival changes, and rows of earlier arrivals trained on again."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

import stages.convert
from tests.helpers.reading import lines, section, write
from tests.helpers.stages import run_main
from tuneline.data.convert import summary_lines
from tuneline.formats.example import Encoded
from tuneline.formats.stored import COUNTS, read_object
from tuneline.formats.token_file import NEWEST, Tokens, TokenWriter, write_tokens
from tuneline.runtime.params import load, parse
from tuneline.sections import check_sections
from tuneline.tokenize.replay import replay_draws
from tuneline.train.batching import batches_of, replayed, split
from tuneline.train.checks import check_replay
from tuneline.train.config.train import Train

HELDOUT = Path("data/processed/heldout.jsonl")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(f"data/processed/{name}.jsonl").read_text().splitlines()]


def question(seed: int) -> str:
    """A long question that shares no words with another one's."""
    generator = random.Random(seed)
    return "".join(chr(generator.randrange(0x4E00, 0x9F00)) for _ in range(30))


def answered(*questions: str) -> list[dict]:
    return [{"question": text, "answer": f"办法{number}{text[:6]}"} for number, text in enumerate(questions)]


def instructed(begin: int, count: int, instruction: str) -> list[dict]:
    return [
        {"instruction": instruction, "input": question(begin + n), "output": f"要点{begin + n}"} for n in range(count)
    ]


@pytest.fixture
def arrive(workspace, monkeypatch):
    """Convert the sources that have come so far: (path, since, rows)."""
    monkeypatch.setenv("TUNELINE_WORKERS", "1")

    def convert(*sources: tuple[str, str | None, list[dict]], **changes) -> list[bytes]:
        listed = []
        for name, since, made in sources:
            write(Path("data/raw") / name, lines(*made))
            listed.append({"path": name} | ({"since": since} if since else {}))
        workspace(data={"sources": listed, "heldout": 10, "max_leak_rate": 1.0} | changes)
        run_main(stages.convert)
        return HELDOUT.read_bytes().splitlines()

    return convert


FIRST = ("a.jsonl", None, [*answered(*map(question, range(60))), *instructed(900, 2, "概括下文。")])


def details() -> dict:
    return json.loads(Path("metrics/convert_details.json").read_text())


def test_later_arrivals_leave_earlier_slices_as_they_are(arrive):
    first = arrive(FIRST)
    assert len(first) == 10
    assert not {"since", "arrival"} & set(details()["sources"]["a"])
    held = [json.loads(line)["messages"][0]["content"] for line in first]
    # What would change the first slice: copies whose raw text may sort first, other answers, and an instruction that
    # is no part of a question once many rows share it.
    copies = [
        {"question": text, "answer": row["answer"], "note": note} for row in FIRST[2][:60]
        for note in range(5) if (text := row["question"]) in held
    ]  # fmt: skip
    others = [{"question": text, "answer": "另一个办法"} for text in held[:3]]
    second = (
        "b.jsonl",
        "2026-10",
        [*answered(*map(question, range(100, 160))), *instructed(950, 30, "概括下文。"), *copies],
    )
    third = ("c.jsonl", "2026-11", [*answered(*map(question, range(200, 260))), *others])
    two = arrive(FIRST, second)
    assert two[:10] == first
    assert len(two) == 20
    three = arrive(FIRST, second, third)
    assert three[:20] == two
    assert len(three) == 30
    assert [json.loads(line)["source"] for line in three] == ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    counts = details()
    assert [row["heldout"] for row in counts["sources"].values()] == [10, 10, 10]
    assert [row["since"] for row in counts["sources"].values()] == [None, "2026-10", "2026-11"]
    assert counts["sources"]["c"]["leaks"] == 3, "rows that ask what an old slice does leave training"
    trained = {row["messages"][-2]["content"] for row in rows("train")}
    assert not trained & {json.loads(line)["messages"][-2]["content"] for line in three}
    said = summary_lines(counts, Path("r"))[1]
    assert said.startswith(
        "convert: held-out items by arrival: 10 of the beginning, 10 of 2026-10, 10 of 2026-11; 3 items"
    )


def test_what_earlier_rows_ask_is_not_held_out(arrive, capsys):
    """Equal questions and near ones: both were trained on before this arrival came."""
    arrive(FIRST)
    trained = [row["messages"][0]["content"] for row in rows("train") if row["messages"][0]["content"][0] != "概"]
    equal = [{"question": text, "answer": "新的答案"} for text in trained[:15]]
    near = [{"question": f"请问{text}，谢谢", "answer": "新的答案二"} for text in trained[15:45]]
    second = ("b.jsonl", "later", [*equal, *near, *answered(*map(question, range(100, 130)))])
    held = [json.loads(line) for line in arrive(FIRST, second)]
    fresh = {question(n) for n in range(100, 130)}
    assert len(held) == 20
    looks = [line for line in capsys.readouterr().out.splitlines() if "compared with all earlier rows" in line]
    assert 2 <= len(looks) <= 3, "each is a search through all rows"
    assert looks[0].startswith("convert: 40 items of later compared")
    assert looks[-1] == "convert: 10 items of later compared with all earlier rows, 0 given away"
    assert {record["messages"][0]["content"] for record in held[10:]} <= fresh
    known = details()["sources"]["b"]["known"]
    assert 15 < known <= 45
    kept = {row["messages"][0]["content"] for row in rows("train")}
    assert {row["question"] for row in equal + near} <= kept, "they are trained on"


def test_a_row_that_left_training_stays_out(arrive):
    """Four more rows make a template of what was a leak; what the model was not trained on then, it is not trained on later."""
    first = arrive(FIRST)
    held = json.loads(first[0])["messages"][0]["content"]
    leak = {"question": held[:26] + "甲乙丙丁", "answer": "泄漏"}
    more = [{"question": held[:26] + question(500 + n)[:4], "answer": f"泄漏{n}"} for n in range(8)]
    second = ("b.jsonl", "2", [*answered(*map(question, range(100, 140))), leak])
    arrive(FIRST, second)
    assert [row["why"] for row in rows("removed")] == ["renamed"]
    arrive(FIRST, second, ("c.jsonl", "3", [*answered(*map(question, range(200, 240))), *more]))
    assert leak["question"] not in {row["messages"][0]["content"] for row in rows("train")}


def test_a_small_arrival_gives_half_of_its_questions_at_most(arrive):
    held = arrive(FIRST, ("b.jsonl", "2", answered(*map(question, range(100, 107)))))
    assert len(held) == 13
    assert details()["sources"]["b"]["train"] == 4
    held = arrive(
        FIRST, ("b.jsonl", "2", answered(question(100))), ("c.jsonl", "3", answered(question(101), question(102)))
    )
    assert [json.loads(line)["source"] for line in held[10:]] == ["c"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["2026-11", "2026-10"], "in the order of their arrival, not 2026-11, 2026-10: add a new source at the end"),
        ([2026.1], "a label in quotes, such as '2026-10': YAML takes 2026.1 for a number"),
        ([" x"], "text on one line"),
    ],
)
def test_wrong_labels_are_refused(labels, expected):
    sources = [{"path": f"{number}.jsonl", "since": label} for number, label in enumerate(labels)]
    with pytest.raises(ValueError, match=expected):
        section(sources)


def test_labels_are_dates_or_any_text_in_the_order_of_the_list():
    import datetime

    sources = [
        {"path": "a", "since": "batch 9"},
        {"path": "b"},
        {"path": "c", "since": "batch 10"},
        {"path": "d", "since": 2026},
    ]
    assert section(sources).arrivals.labels == [None, "batch 9", "batch 10", "2026"]
    assert section(sources).arrivals.of_sources == [1, 0, 2, 3]
    assert section([{"path": "a", "since": datetime.date(2026, 10, 1)}]).arrivals.labels == ["2026-10-01"]
    with pytest.raises(ValueError, match="heldout_source without since"):
        section([{"path": "a"}], heldout_source={"path": "h", "since": "x"})


def token_file(path: Path, counts: tuple[int, ...] = (40, 20, 10)) -> Tokens:
    sources = {
        f"s{number}": {"since": label, "arrival": number, "weight": 1.0}
        for number, label in enumerate((None, "2", "3"))
    }
    draw = replay_draws(sources)
    writer = TokenWriter(path)
    for number, count in enumerate(counts):
        for row in range(count):
            record = {"source": f"s{number}", "id": f"s{number}:{row}"}
            writer.add(Encoded([number, row], [number, row]), replay=draw(record))
    writer.finish()
    return Tokens(path)


def test_replay_takes_a_share_of_earlier_rows_by_their_ids(tmp_path):
    tokens = token_file(tmp_path / "tokens")
    assert ((tokens.replay == NEWEST) == (np.arange(70) >= 60)).all()
    naive, some, more, every = (set(replayed(tokens, share)[0].tolist()) for share in (0.0, 0.2, 0.5, 1.0))
    assert naive == set(range(60, 70))
    assert len(some) == 10 + 12
    assert naive < some < more < every == set(range(70))
    assert replayed(tokens, 0.2)[1] == 12
    assert replayed(tokens, None)[0].tolist() == list(range(70))
    train, held = split(tokens, 0.25, 17, 0.2)
    assert sorted([*train, *held]) == sorted(some)
    other = replay_draws(
        {"s0": {"since": None, "arrival": 0, "weight": 1.0}, "s1": {"since": "4", "arrival": 1, "weight": 1.0}}
    )
    assert other({"source": "s0", "id": "s0:1"}) != tokens.replay[1], "another arrival repeats other rows"


def test_the_newest_arrival_is_the_last_of_the_list_whatever_its_name(arrive):
    """The counts are written in the order of names, here the other way round."""
    arrive(
        ("z.jsonl", None, FIRST[2]),
        ("m.jsonl", "batch 9", answered(*map(question, range(100, 130)))),
        ("a.jsonl", "batch 10", answered(*map(question, range(200, 230)))),
    )
    sources = details()["sources"]
    assert list(sources) == ["a", "m", "z"]
    assert {name: row["arrival"] for name, row in sources.items()} == {"z": 0, "m": 1, "a": 2}
    draw = replay_draws(read_object(Path("metrics/convert_details.json"), COUNTS, "convert")["sources"])
    drawn = {name: draw({"source": name, "id": f"{name}:1"}) for name in sources}
    assert drawn["a"] == NEWEST
    assert 0 <= drawn["z"] < 1
    assert 0 <= drawn["m"] < 1


def test_without_arrivals_the_token_file_is_as_it_was(tmp_path):
    write_tokens(tmp_path / "plain", [Encoded([1, 2], [1, 2])])
    draw = replay_draws({"s": {"weight": 1.0}, "v": {"weight": 0.0}})
    writer = TokenWriter(tmp_path / "drawn")
    writer.add(Encoded([1, 2], [1, 2]), replay=draw({"source": "s", "id": "s:1"}))
    writer.finish()
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "drawn").read_bytes()
    assert b"replay" not in (tmp_path / "plain").read_bytes()
    with pytest.raises(ValueError, match="train.replay is 0.2 and no row is of an earlier arrival, expected null"):
        replayed(Tokens(tmp_path / "plain"), 0.2)


def test_replay_is_said_and_needs_an_adapter_to_go_on_from(tmp_path, params, capsys):
    token_file(tmp_path / "tokens")
    with pytest.raises(ValueError, match="train.replay is 0.2, expected replay null without init"):
        parse(Train, {"train": params["train"] | {"replay": 0.2}})
    train = parse(Train, {"train": params["train"] | {"replay": 0.2, "init": "rev:main", "micro_tokens": None}})
    check_replay(train, tmp_path / "tokens")
    assert capsys.readouterr().out == "train: 10 rows of the newest arrival, 12 of 60 earlier ones (train.replay 0.2)\n"
    steps, _ = batches_of(train, Tokens(tmp_path / "tokens"), packed=True, processes=1)
    assert len(steps) == 3
    seen = {row for step in steps for batch in step for row, _ in batch}
    assert seen <= set(replayed(Tokens(tmp_path / "tokens"), 0.2)[0].tolist())
    earlier = {key: value for key, value in params["train"].items() if key != "replay"}
    assert parse(Train, {"train": earlier}).replay is None


def test_replay_without_arrivals_is_seen_before_anything_runs(workspace):
    workspace(train={"replay": 0.2, "init": "rev:main"})
    with pytest.raises(
        ValueError, match="train.replay is 0.2, expected null where no source of data.sources has `since`"
    ):
        check_sections(load)


def finre(path: Path) -> list[dict]:
    """Sentences of news with their relations as triples, each once, in the order of the file."""
    sentences: dict[str, list[str]] = {}
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        head, tail, relation, sentence = line.split("\t")
        if relation != "unknown":
            sentences.setdefault(sentence, []).append(f"{head}_{relation}_{tail}")
    return [{"question": sentence, "answer": "\n".join(found)} for sentence, found in sentences.items()]


def test_finre_in_three_slices(arrive, samples):
    made = finre(samples / "data/thunlp_chinese_nre/FinRE/train.txt")
    third = len(made) // 3
    parts = [(f"{n}.jsonl", f"2026-0{n + 1}", made[n * third : (n + 1) * third]) for n in range(3)]
    held = [arrive(*parts[: n + 1], heldout=50) for n in range(3)]
    assert list(map(len, held)) == [50, 100, 150]
    assert held[2][:100] == held[1]
    assert held[1][:50] == held[0]
    trained = {row["messages"][-2]["content"] for row in rows("train")}
    assert not trained & {json.loads(line)["messages"][-2]["content"] for line in held[2]}
