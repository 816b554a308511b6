"""The convert stage: five outputs, counts that add up, and a held-out set that no training row leaks."""

import csv
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

import stages.convert
from tests.helpers.killed_worker import end_at_once
from tests.helpers.paths import FIXTURES, ROOT
from tests.helpers.raw_rows import ARRAY, DIALOGUES, MEDQUAD, PAIR
from tests.helpers.reading import lines, write
from tests.helpers.stages import run_main
from tuneline.data.accounting import SourceCounts
from tuneline.data.convert import few_rows_line, summary_lines

PARTS = ("train", "heldout", "rejects", "removed")
TERMS = ("train", "heldout", "duplicates", "leaks", "rejected")


def convert() -> dict[str, list[dict]]:
    run_main(stages.convert)
    return {name: rows(Path(f"data/processed/{name}.jsonl")) for name in PARTS}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def counts() -> dict:
    return json.loads(Path("metrics/convert_details.json").read_text())


def made_up(count: int, seed: int = 3) -> list[dict]:
    """Pairs that have nothing in common."""
    generator = random.Random(seed)
    texts = ["".join(chr(generator.randrange(0x4E00, 0x9FA5)) for _ in range(40)) for _ in range(count)]
    return [{"question": text[:30], "answer": text[30:]} for text in texts]


@pytest.fixture
def two_sources(workspace):
    shutil.copy(ROOT / "data/raw/medical.csv", "data/raw/medical.csv")
    consultations = (FIXTURES / "consultation.jsonl").read_text(encoding="utf-8")
    write(Path("data/raw/legal.jsonl"), consultations + consultations.splitlines()[0] + "\n{broken\n")
    sources = [{"path": "legal.jsonl", "system": ""}, {"path": "medical.csv"}]
    workspace(data={"sources": sources, "heldout": 10})
    return workspace


def test_every_item_is_accounted_for(two_sources):
    parts, counted = convert(), None
    counted = counts()
    legal = counted["sources"]["legal"]
    assert (legal["items"], legal["duplicates"], legal["reasons"]) == (18, 1, {"broken_json": 1})
    assert json.loads(Path("metrics/convert.json").read_text()) == counted["total"]
    for row in (*counted["sources"].values(), counted["total"]):
        assert row["items"] == sum(row[term] for term in TERMS)
    assert len(parts["heldout"]) == counted["total"]["heldout"] == 10
    assert {record["source"] for record in parts["heldout"]} == {"legal", "medical"}
    assert parts["rejects"][0] | {"sha256": ""} == {
        "source": "legal", "origin": "legal.jsonl:18", "reason": "broken_json", "raw": "{broken\n", "sha256": "",
    }  # fmt: skip
    (duplicate,) = parts["removed"]
    assert duplicate["why"] == "duplicate"
    assert duplicate["origin"] in ("legal.jsonl:1", "legal.jsonl:17")


def test_records_have_the_agreed_shape(two_sources):
    parts = convert()
    for record in (*parts["train"], *parts["heldout"]):
        assert set(record) == {"id", "source", "origin", "task", "messages"}
        assert record["id"].startswith(f"{record['source']}:")
        assert len(record["id"].rpartition(":")[2]) == 12
        assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    everywhere = [record["id"] for part in ("train", "heldout") for record in parts[part]]
    assert len(set(everywhere)) == len(everywhere)


def written() -> list[bytes]:
    details = Path("metrics/convert_details.json")
    return [*(Path(f"data/processed/{name}.jsonl").read_bytes() for name in PARTS), details.read_bytes()]


def test_the_same_input_gives_the_same_bytes_with_any_number_of_workers(two_sources, monkeypatch):
    write(Path("data/raw/many.jsonl"), lines(*made_up(3000)) + "{broken\n")
    two_sources(data={"sources": [{"path": "many.jsonl"}, {"path": "medical.csv"}], "heldout": 10})
    monkeypatch.setenv("TUNELINE_WORKERS", "1")
    run_main(stages.convert)
    once = written()
    monkeypatch.setenv("TUNELINE_WORKERS", "2")
    run_main(stages.convert)
    assert written() == once
    monkeypatch.setenv("TUNELINE_WORKERS", "many")
    with pytest.raises(ValueError, match="TUNELINE_WORKERS is 'many', expected a number"):
        run_main(stages.convert)


def zoo(folder: Path) -> dict[str, int]:
    """A folder of every format and every breakage; returns the items of each file."""
    items = {}

    def add(name: str, count: int, content: str | bytes | list | dict, encoding: str = "utf-8") -> None:
        write(folder / name, content, encoding)
        items[name] = count

    talk = "来访者：我睡不着\n\n心理咨询师：多久了？\n"
    add("alpaca.json", 6, ARRAY)
    add(
        "lines.json", 3, lines(PAIR, {"response": "无问"}, {"query": "一", "response": "二", "history": [["三", "四"]]})
    )
    add("toyhom.csv", 2, "department,title,ask,answer\n内科,党参,高血压能吃吗,能\n内科,头痛,无,休息\n", "gb18030")
    add("bom.csv", 1, "question,answer\n带标记的,好\n", "utf-8-sig")
    add("wide.csv", 1, "question,answer\n双字节的,好\n", "utf-16")
    add("quotes.csv", 4, 'question,answer\n甲问,"两\n行"\n乙"问,答\n丙问,"不闭\n丁问,答\n')
    add("内科.txt", 3, "\n\n\n".join(f"标题{n},问题{n}\n回答{n}" for n in "一二三"), "gb18030")
    add("talk.txt", 1, talk)
    add("talk_crlf.txt", 1, talk.replace("睡不着", "很难过").replace("\n", "\r\n"))
    for name, chat in DIALOGUES.items():
        add(f"chats/{name}.json", 1, [chat] if isinstance(chat, dict) else chat)
    add("triples.txt", 2, "甲\t乙\t合作\t甲和乙合作\n甲\t乙\tunknown\t甲遇见乙\n")
    add("spo.json", 1, [{"instruction": "抽取", "input": "甲持股乙", "output": "甲_持股_乙"}])
    add("labels.jsonl", 1, lines({"text": "服务很好", "label": "正面"}))
    add("medquad.xml", 2, MEDQUAD)
    add(
        "keyed.json",
        2,
        {"1": {"QUESTION": "Is it?", "LONG_ANSWER": "Yes."}, "2": {"QUESTION": "Was it?", "LONG_ANSWER": "No."}},
    )
    add("quote.json", 6, json.dumps(ARRAY, ensure_ascii=False).replace("答", "甲").replace('"甲3"', '甲3"'))
    add("comma.json", 6, json.dumps(ARRAY, ensure_ascii=False).replace("答", "乙").replace('"乙2"', '"乙2",'))
    add("comment.json", 6, json.dumps(ARRAY, ensure_ascii=False).replace("答", "丙").replace('"丙2"', '"丙2" // 注'))
    add("cut.json", 6, json.dumps(ARRAY, ensure_ascii=False).replace("答", "丁")[:-9])
    add("cut.jsonl", 2, lines(PAIR | {"response": "别的"}) + '{"query": "断')
    add("nul.jsonl", 2, lines(PAIR | {"response": "再一个"}) + '{"query": "空\x00", "response": "答"}\n')
    add(
        "lost.jsonl",
        3,
        lines(PAIR | {"response": "又"}, PAIR | {"response": "丢\ufffd"}) + '{"query": "\\udc00", "response": "答"}\n',
    )
    add(
        "long.jsonl", 2, lines(PAIR | {"response": "短"}) + '{"query": "' + "长" * 17_000_000 + '", "response": "答"}\n'
    )
    write(folder / "README.md", "# Notes\n\nSome text, with commas.\n")
    write(folder / "LICENSE", "Permission is hereby granted, free of charge\n")
    write(
        folder / "dataset_info.json", {"identity": {"file_name": "alpaca.json", "columns": {"prompt": "instruction"}}}
    )
    write(folder / "empty.jsonl", "")
    write(folder / "picture.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    return items


def test_a_folder_of_every_format_and_every_breakage(workspace):
    items = zoo(Path("data/raw/zoo"))
    workspace(data={"sources": [{"path": "zoo"}], "heldout": 4, "max_reject_rate": 0.5})
    parts, source = convert(), counts()["sources"]["zoo"]
    found: Counter[str] = Counter()
    for part in parts.values():
        found.update(row["origin"].rpartition(":")[0].removeprefix("zoo/") for row in part)
    assert found == Counter(items)
    assert source["items"] == sum(items.values())
    assert {Path(name).name for name in source["skipped"]} == {
        "README.md", "LICENSE", "dataset_info.json", "empty.jsonl", "picture.png",
    }  # fmt: skip
    broken = Counter(row["origin"].rpartition(":")[0].removeprefix("zoo/") for row in parts["rejects"])
    assert broken == {
        "lines.json": 1, "quotes.csv": 1, "medquad.xml": 1, "quote.json": 1, "comma.json": 1, "comment.json": 1,
        "cut.json": 1, "cut.jsonl": 1, "nul.jsonl": 1, "lost.jsonl": 2, "long.jsonl": 1,
    }  # fmt: skip
    assert max(len(row["raw"].encode()) for row in parts["rejects"]) <= 64 * 1024
    assert source["formats"].keys() >= {
        "json",
        "json_lines",
        "table",
        "blocks",
        "transcript",
        "relations",
        "xml",
        "dialogue",
    }


def shuffled_csv(path: Path, generator: random.Random) -> None:
    header, *records = csv.reader(io.StringIO(path.read_bytes().decode("gb18030"), newline=""))
    generator.shuffle(records)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *records])
    path.write_bytes(text.getvalue().encode("gb18030"))


def test_shuffled_files_give_the_same_heldout_set_and_training_rows(workspace):
    shutil.copy(ROOT / "data/raw/medical.csv", "data/raw/medical.csv")
    pairs = made_up(120)
    pairs += [pairs[0], {"question": pairs[1]["question"] + " ", "answer": pairs[1]["answer"]}]
    constant = [
        {"instruction": "请回答下面的问题", "input": pair["question"], "output": "答"} for pair in made_up(40, 5)
    ]
    relation = [
        f"甲{n}\t乙{n}\t{name}\t甲{n}和乙{n}在{pair['question']}"
        for n, pair in enumerate(made_up(20, 7))
        for name in ["合作", "竞争"]
    ]
    sources = [{"path": name} for name in ("medical.csv", "pairs.jsonl", "array.json", "relations.txt")]
    workspace(data={"sources": sources, "heldout": 20})
    results = []
    for generator in (random.Random(1), random.Random(2)):
        for entries in (pairs, constant, relation):
            generator.shuffle(entries)
        write(Path("data/raw/pairs.jsonl"), lines(*pairs))
        write(Path("data/raw/array.json"), constant)
        write(Path("data/raw/relations.txt"), "\n".join(relation))
        shuffled_csv(Path("data/raw/medical.csv"), generator)
        parts = convert()
        results.append({name: [record["id"] for record in parts[name]] for name in ("train", "heldout")})
        contents = [{json.dumps(record["messages"]) for record in parts[name]} for name in ("train", "heldout")]
        results[-1]["contents"] = contents
    assert results[0]["heldout"] == results[1]["heldout"]
    assert sorted(results[0]["train"]) == sorted(results[1]["train"])
    assert results[0]["contents"] == results[1]["contents"]
    assert counts()["total"]["duplicates"] == 2


def test_a_tenth_more_rows_leave_most_of_the_heldout_set(workspace):
    write(Path("data/raw/a.jsonl"), lines(*made_up(500)))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 50})
    before = {record["id"] for record in convert()["heldout"]}
    write(Path("data/raw/a.jsonl"), lines(*made_up(50, 99), *made_up(500)))
    after = {record["id"] for record in convert()["heldout"]}
    assert len(after) == 50
    assert len(before & after) >= 40


def test_planted_near_duplicates_never_reach_training(workspace):
    pairs = made_up(200)
    sources = [{"path": "a.jsonl"}, {"path": "planted.jsonl"}]
    workspace(data={"sources": sources, "heldout": 20, "max_leak_rate": 1.0})
    write(Path("data/raw/a.jsonl"), lines(*pairs))
    write(Path("data/raw/planted.jsonl"), lines(*made_up(5, 8)))
    heldout = [record for record in convert()["heldout"] if record["source"] == "a"][:5]
    planted = []
    for record in heldout:
        question = record["messages"][0]["content"]
        changed = question[:5] + "甲" + question[6:15] + "乙" + question[16:25] + "丙" + question[26:]
        for text in (changed, f"标题：求助。{question}", f"我想请教一下各位医生，{question}，麻烦快点回答我，谢谢了"):
            planted.append({"question": text, "answer": "别的回答"})
    write(Path("data/raw/planted.jsonl"), lines(*planted, *made_up(5, 8)))
    parts = convert()
    questions = {record["messages"][0]["content"] for record in parts["train"]}
    assert not questions & {row["question"] for row in planted}
    assert [record["id"] for record in parts["heldout"] if record["id"] in {r["id"] for r in heldout}] != []
    leaks = [row for row in parts["removed"] if row["why"] != "duplicate"]
    assert (
        len(leaks) + sum(r["messages"][0]["content"] in {p["question"] for p in planted} for r in parts["heldout"])
        == 15
    )
    for leak in leaks:
        assert leak["of"] in {record["id"] for record in parts["heldout"]}
        assert leak["similarity"] >= 0.5
        assert leak["question"]
        assert leak["heldout"]


def test_a_long_constant_instruction_costs_no_row(workspace):
    instruction = ("你是一名经验丰富的临床医生。" * 20)[:185]
    assert len(instruction) == 185
    rows = [
        {"instruction": instruction, "input": pair["question"][:12], "output": pair["answer"]} for pair in made_up(60)
    ]
    write(Path("data/raw/a.json"), rows)
    workspace(data={"sources": [{"path": "a.json"}], "heldout": 20})
    parts = convert()
    assert (len(parts["train"]), len(parts["heldout"]), counts()["total"]["leaks"]) == (40, 20, 0)
    assert all(record["messages"][0]["content"].startswith(instruction) for record in parts["train"])


def test_a_heldout_question_in_the_middle_of_a_dialogue_is_a_leak(workspace):
    pairs = made_up(60)
    write(Path("data/raw/a.jsonl"), lines(*pairs))
    workspace(data={"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}], "heldout": 20})
    fresh = made_up(12, 21)
    talk = {"query": fresh[0]["question"], "response": "答", "history": [["早上好", "您好"]]}
    write(Path("data/raw/b.jsonl"), lines(talk))
    heldout = next(record for record in convert()["heldout"] if record["source"] == "a")["messages"]
    shown = {
        "query": fresh[1]["question"],
        "response": "答",
        "history": [[heldout[0]["content"], heldout[1]["content"]]],
    }
    write(Path("data/raw/b.jsonl"), lines(talk, shown))
    parts = convert()
    removed = [row for row in parts["removed"] if row["source"] == "b"]
    held = [record for record in parts["heldout"] if record["source"] == "b"]
    assert [row["why"] for row in removed] == ["equal"] or any(len(record["messages"]) == 4 for record in held)
    assert not any(heldout[0]["content"] in json.dumps(record, ensure_ascii=False) for record in parts["train"])


def test_the_same_question_with_another_answer_is_kept_and_counted(workspace):
    pairs = made_up(30)
    other = [pair | {"answer": "另一个回答"} for pair in pairs[:3]]
    write(Path("data/raw/a.jsonl"), lines(*pairs, *other))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 1})
    convert()
    total = counts()["total"]
    assert total["duplicates"] == 0
    assert total["conflicts"] + 2 * total["leaks"] >= 6
    assert total["train"] + total["leaks"] == 32


def test_the_summary_names_placeholders_that_are_left():
    total = {"items": 9, "train": 4, "heldout": 2, "duplicates": 1, "leaks": 1, "rejected": 1}
    told = {"placeholders": {"{{name}}": 3, "<AUTHOR>": 1}, "unused": {"images": 2}}
    told |= {"reasons": {"marked_bad": 1}, "noticed": {"masked_answers": 4}}
    sources = {"a": vars(SourceCounts()), "b": vars(SourceCounts()) | told}
    counted = {"sources": sources, "total": total, "unknown_excluded": []}
    assert summary_lines(counted, Path("data/processed/rejects.jsonl")) == [
        "convert: 4 training and 2 held-out items of 9; 1 duplicates, 1 leaks, 1 rejects (data/processed/rejects.jsonl)",
        "convert: b holds placeholders that data.placeholders does not fill: {{name}} (3×), <AUTHOR> (1×)",
        "convert: b has fields that nothing reads: images (2×)",
        "convert: b marks 1 items as bad, which are not learnt",
        "convert: b has 4 dialogues with answers that are marked as not to be learnt: they are masked",
    ]


def test_a_small_file_of_which_most_is_held_out_is_told():
    def told(**row):
        return few_rows_line({"a": vars(SourceCounts()) | row})

    assert told(train=10, heldout=50) == (
        "convert: 50 held-out items leave 10 rows to train on: "
        "add rows, or lower data.heldout in params.yaml, to a tenth of the items, say"
    )
    assert told(train=50, heldout=50) is None
    assert told(train=10, heldout=50, beyond_share=40) is None
    assert (
        few_rows_line({"a": vars(SourceCounts()) | {"train": 9}, "test": vars(SourceCounts()) | {"heldout": 50}})
        is None
    )


def test_a_killed_worker_is_one_sentence(workspace, monkeypatch):
    write(Path("data/raw/a.jsonl"), lines(*made_up(3000)))
    workspace(data={"sources": [{"path": "a.jsonl"}]})
    monkeypatch.setenv("TUNELINE_WORKERS", "2")
    monkeypatch.setattr("tuneline.data.convert.read_to_spool", end_at_once)
    with pytest.raises(ValueError, match="a worker process was killed, most likely for want of memory"):
        run_main(stages.convert)
    assert list(Path("data/processed").iterdir()) == []


@pytest.mark.parametrize("policy", ["keep", "fail"])
def test_the_other_policies_for_leaks(workspace, policy):
    pairs = made_up(30)
    write(Path("data/raw/a.jsonl"), lines(*pairs, *(pair | {"answer": "又一个"} for pair in pairs)))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 5, "leak_policy": policy})
    if policy == "fail":
        with pytest.raises(ValueError, match=r"leak_policy is fail and 5 rows leak a held-out item: a.jsonl:\d+ of a:"):
            run_main(stages.convert)
        assert list(Path("data/processed").iterdir()) == []
        return
    parts = convert()
    assert (len(parts["train"]), counts()["total"]["leaks"], counts()["total"]["leaks_kept"]) == (55, 0, 5)


def test_a_source_does_not_vanish_unsaid(workspace):
    exam = made_up(6)
    write(Path("data/raw/exam.jsonl"), lines(*exam))
    copies = [
        {"question": f"请问，{pair['question']}", "answer": f"另一个回答{number}"}
        for number, pair in enumerate(exam * 2)
    ]
    write(Path("data/raw/a.jsonl"), lines(*made_up(30, 3)))
    write(Path("data/raw/b.jsonl"), lines(*copies[:8], *made_up(3, 4)))
    sources = {"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}], "heldout_source": {"path": "exam.jsonl"}}
    workspace(data=sources)
    with pytest.raises(ValueError, match="8 of 11 training rows of 'b.jsonl' leak a held-out item") as raised:
        run_main(stages.convert)
    message = str(raised.value)
    shared = exam[0]["question"][:20]
    assert f"removes 2, sharing '{shared}" in message or f"removes 2, sharing '{exam[1]['question'][:20]}" in message
    assert message.count("sharing") == 3
    assert "write `max_leak_rate: 0.73` under data in params.yaml" in message
    assert list(Path("data/processed").iterdir()) == []
    workspace(data={"max_leak_rate": 0.73})
    convert()
    assert (counts()["sources"]["b"]["train"], counts()["sources"]["b"]["leaks"]) == (3, 8)
    workspace(data={"max_leak_rate": 0.1, "leak_policy": "keep"})
    convert()
    assert (counts()["sources"]["b"]["train"], counts()["sources"]["b"]["leaks_kept"]) == (11, 8)


def test_rows_that_share_text_that_is_not_their_own_stay(workspace):
    opening = "你是一名经验丰富的全科医生，请根据患者的描述给出诊断和治疗建议，回答要专业、准确、简洁。患者描述："
    rows = [{"question": f"{opening}{pair['question'][:9]}怎么办", "answer": pair["answer"]} for pair in made_up(60)]
    write(Path("data/raw/a.jsonl"), lines(*rows))
    write(
        Path("data/raw/law.jsonl"),
        lines(*({"question": f"《民法典》第{n}条的内容是什么？", "answer": f"第{n}条"} for n in range(9, 30))),
    )
    workspace(data={"sources": [{"path": "a.jsonl"}, {"path": "law.jsonl"}], "heldout": 20})
    convert()
    assert counts()["total"]["leaks"] == 0
    assert counts()["total"]["train"] == 61


def test_a_heldout_answer_is_found_in_training(workspace):
    pairs = made_up(40)
    write(Path("data/raw/a.jsonl"), lines(*pairs))
    answer = (
        "先物理降温并多喝温水，体温超过三十八度五时按体重服用退烧药，精神差、抽搐或者持续三天不退就要马上去医院看急诊"
    )
    write(Path("data/raw/exam.jsonl"), lines({"question": "宝宝半夜发热", "answer": answer}))
    write(Path("data/raw/b.jsonl"), lines({"question": "婴儿体温很高", "answer": f"您好。{answer}！"}, *made_up(9, 5)))
    sources = {"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}], "heldout_source": {"path": "exam.jsonl"}}
    workspace(data=sources)
    parts = convert()
    (leak,) = [row for row in parts["removed"] if row["why"] != "duplicate"]
    assert (leak["why"], leak["of"], leak["similarity"]) == ("answer", parts["heldout"][0]["id"], 1.0)
    assert leak["question"].startswith("您好。先物理降温")
    assert leak["heldout"].startswith("先物理降温")


def test_a_heldout_file_of_ones_own(workspace):
    pairs = made_up(40)
    write(Path("data/raw/a.jsonl"), lines(*pairs))
    write(Path("data/raw/exam.jsonl"), lines(*pairs[:3], *made_up(7, 11), "broken"))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout_source": {"path": "exam.jsonl"}, "max_reject_rate": 0.5})
    parts, counted = convert(), counts()
    heldout = {record["messages"][0]["content"] for record in parts["heldout"]}
    assert heldout == {pair["question"] for pair in pairs[:3] + made_up(7, 11)}, "all of it, also what is in the other"
    assert counted["sources"]["a"]["duplicates"] == 3
    assert not heldout & {record["messages"][0]["content"] for record in parts["train"]}
    assert counted["sources"]["exam"]["train"] == 0
    assert counted["sources"]["exam"]["rejected"] == 1
    for row in counted["sources"].values():
        assert row["items"] == sum(row[term] for term in TERMS)


def test_too_many_rejects_fail_the_stage_and_say_why(workspace):
    good = lines(*made_up(30))
    bad = '{"question": "无答"}\n' * 6 + "{broken\n" * 4
    write(Path("data/raw/a.jsonl"), good + bad)
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 5})
    with pytest.raises(
        ValueError, match=r"10 of 40 items of 'a.jsonl' were rejected \(6 × no_answer_field, 4 × broken_json\)"
    ):
        run_main(stages.convert)
    assert list(Path("data/processed").iterdir()) == []
    workspace(data={"max_reject_rate": 0.25})
    run_main(stages.convert)


def test_a_source_of_which_nothing_was_read_says_why(workspace):
    write(Path("data/raw/a.jsonl"), '{"prompt": "a", "completed": "b"}\n' * 3)
    workspace(data={"sources": [{"path": "a.jsonl"}], "max_reject_rate": 1.0})
    with pytest.raises(ValueError, match=r"3 of 3 items of 'a.jsonl' were rejected \(3 × no_answer_field\)"):
        run_main(stages.convert)


@pytest.mark.parametrize("content", ["question,answer\n", "[]", "[\n]\n"])
def test_a_file_without_a_row(workspace, content):
    write(Path("data/raw/raw.csv"), content)
    workspace(data={"sources": [{"path": "raw.csv", "format": "table" if "," in content else "json"}]})
    with pytest.raises(ValueError, match=r"'raw.csv' holds no row"):
        run_main(stages.convert)


def test_a_folder_of_notes_alone_holds_no_row(workspace):
    write(Path("data/raw/notes/README.md"), "# Notes\n")
    workspace(data={"sources": [{"path": "notes"}]})
    with pytest.raises(
        ValueError, match=r"holds no row, expected questions and answers \(1 files skipped, such as notes/"
    ):
        run_main(stages.convert)


def test_a_folder_of_tables_with_columns_of_their_own_says_how_to_name_them(workspace):
    for year in (2025, 2026):
        write(Path(f"data/raw/visits/{year}.csv"), "主诉,科室\n咳嗽三天,呼吸科\n")
    workspace(data={"sources": [{"path": "visits/"}]})
    with pytest.raises(
        ValueError, match=r"2 files skipped, such as visits/2025.csv\); .*`columns: \{question: 主诉, answer"
    ):
        run_main(stages.convert)


def test_what_a_folder_loses_is_said(workspace, capsys):
    rows = "question,answer\n" + "".join(f"咳嗽第{number}天怎么办,多喝水\n" for number in range(20))
    write(Path("data/raw/visits/a.csv"), rows)
    write(Path("data/raw/visits/b.csv"), "主诉,科室\n咳嗽三天,呼吸科\n")
    write(Path("data/raw/visits/c.csv"), 2 * rows.encode("gb18030") + rows.encode())
    workspace(data={"sources": [{"path": "visits/"}], "heldout": 2, "leak_policy": "keep"})
    run_main(stages.convert)
    said = capsys.readouterr().out
    assert "visits holds files that no reader knows: 1 are skipped, such as visits/b.csv" in said
    assert (
        "visits holds files that can't be read, or not to their end (1): data/processed/rejects.jsonl says why" in said
    )


def test_a_label_that_is_a_missing_value_is_rejected(workspace):
    table = "question,answer\n" + "".join(
        f"第{number}号病人咳嗽,{'NULL' if number < 3 else '无'}\n" for number in range(20)
    )
    write(Path("data/raw/visits.csv"), table)
    workspace(data={"sources": [{"path": "visits.csv", "task": "label"}], "heldout": 2})
    run_main(stages.convert)
    assert [reject["reason"] for reject in rows(Path("data/processed/rejects.jsonl"))] == ["empty_answer"] * 3
    assert {record["messages"][-1]["content"] for record in rows(Path("data/processed/train.jsonl"))} == {"无"}


def test_a_failing_stage_leaves_nothing_behind(workspace):
    write(Path("data/raw/medical.csv"), "question,answer\na,b\n")
    workspace(data={"sources": [{"path": "medical.csv"}], "heldout": 5})
    with pytest.raises(ValueError, match=r"data.heldout is 5"):
        run_main(stages.convert)
    workspace(data={"heldout": 1})
    with pytest.raises(ValueError, match=r"no training row is left: 1 items, 1 heldout, 0 duplicates"):
        run_main(stages.convert)
    assert not Path("data/processed").exists() or not list(Path("data/processed").iterdir())
