"""What must not leave with a release is found however it is written, and what belongs to a model is let through."""

import json
from pathlib import Path

import pytest

from tuneline.cli.push.contents import release_files
from tuneline.cli.push.privacy import private_content
from tuneline.runtime.hashing import write_sums

QUESTION = "我妈妈上周摔了一跤，现在左腿抬不起来，要不要先去拍片子？"
ANSWER = "建议先去骨科拍片。联系人赵小梅，住青石巷十二号三楼，电话是零二一，六六八八。Please bring the old X-ray films."
THOUGHT = "老人摔倒后抬不起腿，要先排除髋部骨折，再看是不是神经的问题。"
OTHER = "也可以先打急救电话，让人用担架把老人抬去医院，路上不要乱动。"
SHORT = "孩子三天没有大便了，怎么办？"
SYSTEM = "你是一位耐心的分诊护士，只说该去哪个科室，不谈用药，也不谈诊断。"
CALLED = "青石巷十二号三楼左手边第二家，门口有一棵石榴树，晚上八点以后才有人。"
LABEL = "耳鼻咽喉头颈外科（含睡眠呼吸与听力障碍门诊，周一至周五）"


def record(question: str, answer: str, **more) -> dict:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"id": "a:1", "source": "a", "origin": "a.csv:1", "task": "qa", "messages": messages} | more


def thinking() -> dict:
    found = record("好吗？", "好。")
    found["messages"][-1] |= {"reasoning": THOUGHT, "tool_calls": [{"name": "find", "arguments": {"where": [CALLED]}}]}
    return found


def write(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def project(tmp_path) -> Path:
    data = tmp_path / "data/processed"
    write(
        data / "train.jsonl", record("好吗？", "好。"), record(QUESTION, ANSWER, references=[ANSWER, OTHER]), thinking()
    )
    write(data / "heldout.jsonl", record(SHORT, LABEL, task="label"))
    write(
        data / "removed.jsonl",
        {"id": "a:9", "why": "question", "question": "the LAST will of my aunt Petronella Smith"},
    )
    rejected = json.dumps({"q": "我姓欧阳，身份证在去年春天丢了，补办的时候要带上什么？"})
    write(
        data / "rejects.jsonl",
        {"source": "a", "raw": rejected},
        {"source": "a", "raw": "a,b,陈年旧账本里夹着一张没有署名的欠条，写着三千八百元整"},
    )
    write(
        data / "base_answers.jsonl",
        {"id": "a:1", "prediction": "小区东门旁边的老王修车铺，每天早上七点开门，下午五点关门"},
    )
    write(
        data / "base_general.jsonl",
        {"id": "poem", "question": "写一首关于秋天的四句短诗，每句七个字，要押韵，不要标题。"},
    )
    (data / "classes.json").write_text(json.dumps({"label": [LABEL]}))
    template = "以下是病人的原话，请用一句话说出科室：{question}"
    (tmp_path / "params.yaml").write_text(f'data:\n  sources:\n    - path: a.csv\n      template: "{template}"\n')
    return tmp_path


def found_in(project: Path, text: str, name: str = "README.md") -> list[str]:
    folder = project / "release"
    folder.mkdir()
    (folder / name).write_text(text, encoding="utf-8")
    write_sums(folder)
    return list(private_content(release_files(folder), project))


def wrapped(text: str, width: int, mark: str = "") -> str:
    return "\n".join(mark + text[start : start + width] for start in range(0, len(text), width))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (ANSWER[1:], "row 2 of data/processed/train.jsonl"),
        (ANSWER[len(ANSWER) // 2 :], "row 2 of data/processed/train.jsonl"),
        (ANSWER[11:36], "row 2 of data/processed/train.jsonl"),
        (wrapped(ANSWER, 10), "row 2 of data/processed/train.jsonl"),
        (wrapped(ANSWER, 10, "> "), "row 2 of data/processed/train.jsonl"),
        (json.dumps(ANSWER), "row 2 of data/processed/train.jsonl"),
        (ANSWER.upper().replace("，", ","), "row 2 of data/processed/train.jsonl"),
        (f"{QUESTION[:-1]}", "row 2 of data/processed/train.jsonl"),
        (OTHER, "row 2 of data/processed/train.jsonl"),
        (THOUGHT, "row 3 of data/processed/train.jsonl"),
        (CALLED, "row 3 of data/processed/train.jsonl"),
        (f"例如：{SHORT}", "row 1 of data/processed/heldout.jsonl"),
        ("the last will of my aunt petronella", "row 1 of data/processed/removed.jsonl"),
        ("我姓欧阳，身份证在去年春天丢了，补办的时候要带上什么？", "row 1 of data/processed/rejects.jsonl"),
        ("陈年旧账本里夹着一张没有署名的欠条，写着三千八百元整", "row 2 of data/processed/rejects.jsonl"),
        ("老王修车铺，每天早上七点开门，下午五点关门，节假日", ""),
        ("小区东门旁边的老王修车铺，每天早上七点开门，下午五点关门", "row 1 of data/processed/base_answers.jsonl"),
    ],
)
def test_text_of_a_row_is_found_however_it_is_written(project, text, where):
    found = found_in(project, f"# A model\n\nIt says {text}\n\nand so on.\n")
    assert found == ([f"README.md holds text of {where}"] if where else [])


def test_every_stretch_of_24_characters_is_found_and_none_of_23(project):
    bare = "".join(ANSWER.split())
    for start in range(len(bare) - 24 + 1):
        stretch = bare[start : start + 24]
        write(project / "data/processed/heldout.jsonl", record("好吗？", "好。"))
        folder = project / f"release{start}"
        folder.mkdir()
        (folder / "README.md").write_text(f"# {stretch[:23]}#\n", encoding="utf-8")
        write_sums(folder)
        assert list(private_content(release_files(folder), project)) == [], stretch
        (folder / "README.md").write_text(f"# {stretch}\n", encoding="utf-8")
        write_sums(folder)
        assert list(private_content(release_files(folder), project)), stretch


def test_a_licence_that_holds_a_row_is_no_way_out(project):
    assert found_in(project, ANSWER, "NOTICE") == ["NOTICE holds text of row 2 of data/processed/train.jsonl"]


@pytest.mark.parametrize(
    "text",
    [
        f"It answers with one of: {LABEL}",
        f"SYSTEM {SYSTEM}",
        "It is asked: 以下是病人的原话，请用一句话说出科室：",
        "写一首关于秋天的四句短诗，每句七个字，要押韵，不要标题。",
        "好吗？好。",
    ],
)
def test_what_belongs_to_the_model_may_stand_in_it(project, text):
    data = project / "data/processed"
    write(data / "rejects.jsonl", {"raw": json.dumps({"messages": [{"role": "system", "content": SYSTEM}]})})
    asked = f"以下是病人的原话，请用一句话说出科室：{QUESTION}"
    write(data / "train.jsonl", record(asked, LABEL, task="label"))
    assert found_in(project, text) == []


def test_rows_of_code_do_not_trip_over_the_cards_own(project):
    code = 'model = AutoModelForCausalLM.from_pretrained("this-folder", dtype="auto")'
    write(project / "data/processed/train.jsonl", record("怎么加载？", code))
    assert found_in(project, f"```python\n{code}\n```\n") == []


@pytest.mark.parametrize("line", ["", "{", '{"messages": null}', "[]", json.dumps(record("", "") | {"messages": []})])
@pytest.mark.parametrize("name", ["train", "heldout"])
def test_a_line_that_is_no_row_is_named(project, name, line):
    (project / f"data/processed/{name}.jsonl").write_text(f"{json.dumps(record('好吗？', '好。'))}\n{line}\n")
    with pytest.raises(ValueError, match=rf"data/processed/{name}\.jsonl, line 2: .*`dvc repro convert`"):
        found_in(project, "# A model")


def test_rows_of_another_form_are_searched(project):
    rows = [
        {"messages": None},
        {"messages": ["x"]},
        {"messages": [{"content": "备份里还留着一行谁也没有删掉的病历，写的是去年冬天的事"}]},
    ]
    write(project / "data/processed/older.jsonl", *rows)
    found = found_in(project, "备份里还留着一行谁也没有删掉的病历，写的是去年冬天的事")
    assert found == ["README.md holds text of row 3 of data/processed/older.jsonl"]


def test_classes_that_are_none_are_named(project):
    (project / "data/processed/classes.json").write_text("[]")
    with pytest.raises(ValueError, match="classes.json holds list, expected an object"):
        found_in(project, "# A model")


@pytest.mark.parametrize(
    "key",
    [
        "hf_" + "aB3" * 8,
        "ms-01234567-89ab-cdef-0123-456789abcdef",
        "sk-" + "a1" * 12,
        "sk-proj-" + "a_1" * 12,
        "ghp_" + "a1" * 18,
        "github_pat_" + "a1" * 15,
        "AKIA" + "A1B2" * 4,
        "LTAI" + "a1B2" * 5,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_keys_are_found(project, key):
    assert found_in(project, f'{{"env": "TOKEN={key}"}}', "config.json") == ["config.json holds a key"]


@pytest.mark.parametrize(
    "place",
    ["/home/fang/x", "/mnt/alice/x", "/data/alice/x", "/workspace/bob", "/scratch/bob/runs", r"C:\\Users\\bob"],
)
def test_folders_of_a_machine_are_found(project, place):
    assert found_in(project, json.dumps({"base": place}), "config.json") == [
        "config.json names a folder of this machine"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "See data/processed/train.jsonl",
        "https://example.org/data/alice",
        "task-aware-and-much-longer-words",
        "hf_device_map",
    ],
)
def test_what_looks_like_it_is_let_through(project, text):
    assert found_in(project, text) == []


@pytest.mark.parametrize(
    "name", ["train.json", "rows.txt", "notes.md", "heldout.jsonl", "NOTICE.jsonl", "LICENSE.csv", "a.py"]
)
def test_other_names_than_a_models_are_refused(project, name):
    with pytest.raises(ValueError, match=rf"{name} is no file of a model, so it is not pushed"):
        found_in(project, "{}", name)


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "LICENSE-2.0",
        "LICENSE.txt",
        "MODEL_LICENSE",
        "NOTICE.md",
        "vocab.txt",
        "model.safetensors.index.json",
    ],
)
def test_names_of_a_model_are_known(project, name):
    assert found_in(project, "{}", name) == []
