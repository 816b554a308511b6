"""Recipes run beside the project, on a tiny ChatGLM3 checkpoint and raw files of the form that each recipe asks for."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from tests.helpers.chatglm3 import SIZES, checkpoint, train_pieces
from tests.helpers.commands import git, python
from tests.helpers.paths import ROOT
from tests.helpers.sections import SECTIONS
from tests.helpers.tiny_models import base_section
from tuneline.cli.recipe import merge
from tuneline.runtime.params import load, read_params, read_yaml

ILLS = [
    "感冒",
    "头痛",
    "咳嗽",
    "失眠",
    "发烧",
    "腹泻",
    "胃痛",
    "过敏",
    "便秘",
    "贫血",
    "湿疹",
    "痛风",
    "哮喘",
    "鼻炎",
    "牙痛",
    "扭伤",
]
PAIRS = ["、".join(random.Random(n).sample(ILLS, 4)) for n in range(len(ILLS))]
"""No two alike, so that none leaks."""
CARES = ["多休息", "多喝水", "少熬夜", "早就医"]


def write_lines(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def legal(raw: Path) -> None:
    rows = [
        {
            "instruction": f"第{n}条：{ill}时单位能否辞退我？",
            "input": "",
            "output": f"不能。{CARES[n % 4]}，并保留证据。",
        }
        for n, ill in enumerate(PAIRS)
    ]
    (raw / "legal").mkdir()
    (raw / "legal/questions.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def medical(raw: Path) -> None:
    lines = ["department,title,ask,answer"]
    lines += [f"内科,{ill},我{ill}{n}天了怎么办？,{CARES[n % 4]}，必要时检查。" for n, ill in enumerate(PAIRS)]
    (raw / "medical").mkdir()
    (raw / "medical/内科.csv").write_bytes("\n".join(lines).encode("gb18030"))


def demo(raw: Path) -> None:
    rows = [
        {"conversations": [
            {"role": "user", "content": f"类型#{ill}*建议#{CARES[n % 4]}"},
            {"role": "assistant", "content": f"{ill}时请{CARES[n % 4]}。"},
        ]}
        for n, ill in enumerate(PAIRS)
    ]  # fmt: skip
    write_lines(raw / "demo/train.json", rows)


def generation(raw: Path) -> None:
    rows = [
        {"content": f"症状#{ill}*建议#{CARES[n % 4]}", "summary": f"{ill}时请{CARES[n % 4]}。"}
        for n, ill in enumerate(PAIRS)
    ]
    write_lines(raw / "generation/train.json", rows)


def classification(raw: Path) -> None:
    rows = [
        {"context": f"新闻标题：{ill}（{n}）\n类别：", "target": f"news_{'ab'[n % 2]}"} for n, ill in enumerate(PAIRS)
    ]
    write_lines(raw / "classification/train.jsonl", rows)


def psychology(raw: Path) -> None:
    talks = [
        {"conversation": [
            {"system": "你是咨询师。", "input": f"最近总是{ill}，心里很慌。", "output": f"听起来不容易。{CARES[n % 4]}好吗？"},
            {"input": "我试试。", "output": f"好的，从{CARES[(n + 1) % 4]}开始。"},
        ]}
        for n, ill in enumerate(PAIRS)
    ]  # fmt: skip
    (raw / "psychology").mkdir()
    (raw / "psychology/data.json").write_text(json.dumps(talks, ensure_ascii=False), encoding="utf-8")


def triples(raw: Path) -> None:
    rows = [
        {
            "instruction": "抽取三元组。",
            "input": f"第{n}号病人因{ill}入院。",
            "output": f"病人{n}_诊断_{ill}" if n % 5 else "",
        }
        for n, ill in enumerate(PAIRS)
    ]
    write_lines(raw / "triples/spo.jsonl", rows)


def dialogues(raw: Path) -> None:
    rows = [
        {"instruction": f"{ill}要吃药吗？", "output": f"先{CARES[n % 4]}。",
         "history": [[f"医生，我{ill}{n}天了。", "请问多大年纪？"]]}
        for n, ill in enumerate(PAIRS)
    ]  # fmt: skip
    write_lines(raw / "dialogues/cmt.jsonl", rows)


RECIPES = {
    "chatglm3-legal-lora": legal,
    "chatglm3-medical-lora": medical,
    "chatglm3-psychology-lora": psychology,
    "chatglm3-triples-lora": triples,
    "chatglm3-triples-freeze": triples,
    "chatglm3-triples-p-tuning": triples,
    "chatglm3-triples-p-tuning-v2": triples,
    "chatglm3-medical-dialogue": dialogues,
    "chatglm3-demo-lora": demo,
    "chatglm3-generation": generation,
    "chatglm3-classification": classification,
}
SMALL = [
    "base.max_perplexity_zh=null", "base.max_perplexity_en=null", "data.heldout=4", "train.max_steps=4",
    "train.learning_rate=1e-2", "train.save_steps=2", "evaluate.max_new_tokens=4", "export.dtype=float32",
    "export.layout=chatglm3",
]  # fmt: skip
OF_THEIR_OWN = {"chatglm3-triples-freeze": ["freeze.layers=1"]}
"""Two layers are all that the tiny checkpoint has."""


def test_every_chatglm3_recipe_is_tried():
    assert set(RECIPES) == {path.stem for path in (ROOT / "recipes").glob("chatglm3-*.yaml")}


@pytest.fixture
def tiny_chatglm3(tmp_path) -> dict:
    """A checkpoint as a user would place it, and its `base` section."""
    source = tmp_path / "chatglm3-tiny"
    checkpoint(source, train_pieces(tmp_path / "pieces", "identity", 420), SIZES["grouped"] | {"seq_length": 4096})
    return base_section(source)


@pytest.mark.story
@pytest.mark.parametrize(
    "name",
    [
        name if name == "chatglm3-triples-lora" else pytest.param(name, marks=pytest.mark.matrix)
        for name in RECIPES
    ],
)  # fmt: skip
def test_a_recipe_runs_beside_the_project(project, tiny_chatglm3, name):
    RECIPES[name](project / "data/raw")
    before = (project / "params.yaml").read_bytes()
    changes = [
        *SMALL,
        *OF_THEIR_OWN.get(name, []),
        f"base.source={tiny_chatglm3['source']}",
        f"base.sha256={tiny_chatglm3['sha256']}",
    ]
    # Change a file that git knows, without committing it: the recipe runs with it.
    (project / "data/raw/medical.csv").write_text("question,answer\n你好,您好\n", encoding="utf-8")
    result = python(project, "-m", "tuneline", "recipe", name, *changes)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    run = project / "runs" / name
    assert (project / "params.yaml").read_bytes() == before
    assert not (project / "models/merged").exists()
    assert (run / "data/raw/medical.csv").read_bytes() == (project / "data/raw/medical.csv").read_bytes()
    recipe, params = read_yaml(ROOT / f"recipes/{name}.yaml"), read_yaml(run / "params.yaml")
    for section in ("lora", "ptuning", "tokenize", "tune"):
        assert params[section] == read_params(project / "params.yaml")[section] | recipe.get(section, {})
    trained = json.loads((run / "metrics/train.json").read_text())
    assert trained["steps"] > 1
    assert trained["last_loss"] < trained["first_loss"]
    assert json.loads((run / "metrics/eval.json").read_text())["items"] == 4
    assert json.loads((run / "metrics/export.json").read_text())["delta_nll"] < 0.01
    assert (run / "models/merged/chatglm3/tokenizer.model").is_file()
    # The project itself sees nothing of it, and the run is a repository of its own.
    assert "runs" not in git(project, "status", "--porcelain")
    assert "params.yaml" in git(run, "status", "--porcelain")
    again = python(project, "-m", "tuneline", "recipe", name, *changes)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "Running stage" not in again.stdout, "nothing changed, so nothing runs"


FULL = {
    "chatglm3-classification": "5214a58dd9d12e1f",
    "chatglm3-demo-lora": "4b5cdad1dae4fe3c",
    "chatglm3-generation": "218ddca95f3b99c4",
    "chatglm3-legal-lora": "a3317ed045b75f34",
    "chatglm3-medical-dialogue": "626c9d033061944e",
    "chatglm3-medical-lora": "931633354a0997ba",
    "chatglm3-psychology-lora": "2b4dc0580466647a",
    "chatglm3-triples-freeze": "7a0fb46feda05a03",
    "chatglm3-triples-lora": "9b304cd932eda532",
    "chatglm3-triples-p-tuning-v2": "aaf006795c05a76e",
    "chatglm3-triples-p-tuning": "c605ae3de1286cfa",
    "consultations": "0cd4c501714be9ba",
    "entities": "7b567783e47f5330",
    "lawbench-gpu": "b78e3497e45494ba",
    "self-cognition": "9ebd24385c41608e",
    "topics": "36e377b56310eea5",
    "triples": "a0f2c6bfe9f5bea8",
}
"""sha256, the first 16 digits, of all parameters with which each recipe runs, as JSON with sorted keys.

A recipe is what was published, so these change only when a recipe does, or when params.yaml gets a new key.
"""
OTHER_DEFAULTS = {
    "fetch": {"packages": ["other"]},
    "data": {"sources": [{"path": "other.csv"}], "heldout": 7, "seed": 3, "placeholders": {"name": "other"}},
    "tokenize": {"max_tokens": 99, "max_prompt_tokens": 33, "overlong": "truncate_prompt", "mask": "last_answer"},
    "tune": {"method": "full"},
    "lora": {"r": 3, "alpha": 5, "dropout": 0.3, "variant": "dora", "target_modules": ["up_proj"], "modules_to_save": ["norm"]},
    "ptuning": {"num_virtual_tokens": 3, "projection": None, "encoder_hidden_size": 7},
    "freeze": {"layers": 9, "patterns": ["model.norm.*"]},
    "train": {
        "seed": 3, "epochs": 0.5, "max_steps": 5, "learning_rate": 0.3, "weight_decay": 0.3, "betas": [0.3, 0.3], "warmup_ratio": 0.3,
        "warmup_steps": 3, "lr_scheduler_type": "other", "max_grad_norm": 0.3, "batch_size": 6, "micro_batch_size": 6,
        "gradient_checkpointing": None, "eval_fraction": 0.3, "save_steps": 3, "logging_steps": 3,
    },
    "deepspeed": {"zero_stage": 3, "offload": "param"},
    "evaluate": {"max_new_tokens": 3, "batch_size": 3},
    "export": {"dtype": "float16", "max_delta_nll": 0.3},
}  # fmt: skip
"""Values that no recipe has, of the keys that decide what a recipe gives."""
ONLY_OF = {"lora": "lora", "ptuning": "prefix", "freeze": "freeze"}
"""Sections that count with one method alone."""


def test_every_recipe_is_in_the_table():
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} == FULL.keys()


@pytest.mark.parametrize("name", FULL)
def test_a_recipe_is_the_full_set_of_parameters_that_it_was(tmp_path, name):
    path = ROOT / f"recipes/{name}.yaml"
    params = read_params(ROOT / "params.yaml")
    merge(params, read_yaml(path), path)
    text = json.dumps(params, sort_keys=True, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == FULL[name], text
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    for section in SECTIONS:
        load(section, tmp_path / "params.yaml")


@pytest.mark.parametrize("name", FULL)
def test_another_default_changes_no_recipe(name):
    path = ROOT / f"recipes/{name}.yaml"
    recipe = read_yaml(path)
    method = recipe["tune"]["method"]
    unsaid = [
        f"{section}.{key}"
        for section, keys in OTHER_DEFAULTS.items()
        for key in keys
        if key not in recipe.get(section, {}) and ONLY_OF.get(section, method) == method
    ]
    if "lawbench" not in path.read_text(encoding="utf-8"):
        unsaid = [key for key in unsaid if key != "fetch.packages"]
    assert unsaid == []


@pytest.mark.parametrize("name", FULL)
def test_a_recipe_begins_with_what_it_is_what_to_place_and_what_it_gives(name):
    lines = (ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [line.startswith("# ") for line in lines[:4]] == [True, True, True, False]
    assert lines[1].startswith("# Place ")
    assert lines[2].startswith("# Gives ")
    if name.startswith("chatglm3-"):
        assert lines[0].startswith("# Equals ")
        assert " but for " in lines[0]


@pytest.mark.parametrize("language", ["recipes.md", "recipes.zh.md"])
def test_the_docs_name_every_recipe(language):
    text = (ROOT / "docs" / language).read_text(encoding="utf-8")
    assert [name for name in FULL if f"`{name}`" not in text] == []


def test_a_recipe_with_a_key_that_params_do_not_have_is_refused():
    with pytest.raises(ValueError, match=r"recipes/x.yaml: lora.rank, lorra.r is not in params.yaml"):
        merge(read_params(ROOT / "params.yaml"), {"lora": {"rank": 1}, "lorra": {"r": 1}}, Path("recipes/x.yaml"))


def test_a_recipe_that_is_not_there(project):
    result = python(project, "-m", "tuneline", "recipe", "chatglm3-legal")
    assert result.returncode == 1
    assert result.stderr.startswith("recipe: RECIPE is 'chatglm3-legal', expected one of chatglm3-legal-lora, ")
    assert not (project / "runs").exists()


def test_a_key_that_is_not_there(project):
    result = python(project, "-m", "tuneline", "recipe", "self-cognition", "lora.rank=3")
    assert result.returncode == 1
    assert "lora.rank" in result.stderr
    assert result.stderr.count("\n") == 1


def test_files_that_went_away_go_away_in_the_copy_too(project):
    from tuneline.cli import recipe

    def prepare() -> Path:
        program = "from tuneline.cli.recipe import prepare; print(prepare('self-cognition', []))"
        result = python(project, "-c", program, env={"PYTHONPATH": str(ROOT)})
        assert result.returncode == 0, result.stderr[-2000:]
        return project / result.stdout.strip()

    run = prepare()
    assert run.relative_to(project) == recipe.RUNS / "self-cognition"
    assert (run / "docs/concepts.md").is_file()
    (run / "dvc.lock").write_text("the copy's own")
    (project / "docs/concepts.md").unlink()
    (project / "new.txt").write_text("new")
    prepare()
    assert not (run / "docs/concepts.md").exists()
    assert (run / "new.txt").read_text() == "new"
    assert (run / "dvc.lock").read_text() == "the copy's own"
