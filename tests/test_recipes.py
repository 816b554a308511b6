"""Recipes run beside the project, on a tiny ChatGLM3 checkpoint and raw files of the form that each recipe asks for."""

import json
import random
from pathlib import Path

import pytest
import yaml

from tests.helpers.chatglm3 import SIZES, checkpoint, train_pieces
from tests.helpers.commands import git, python
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import base_section

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
    "chatglm3-medical-dialogue": dialogues,
}
SMALL = [
    "base.max_perplexity_zh=null", "base.max_perplexity_en=null", "data.heldout=4", "train.max_steps=4",
    "train.learning_rate=1e-2", "evaluate.max_new_tokens=4", "export.dtype=float32", "export.layout=chatglm3",
]  # fmt: skip


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
    changes = [*SMALL, f"base.source={tiny_chatglm3['source']}", f"base.sha256={tiny_chatglm3['sha256']}"]
    # Change a file that git knows, without committing it: the recipe runs with it.
    (project / "data/raw/medical.csv").write_text("question,answer\n你好,您好\n", encoding="utf-8")
    result = python(project, "-m", "tuneline.cli.recipe", name, *changes)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    run = project / "runs" / name
    assert (project / "params.yaml").read_bytes() == before
    assert not (project / "models/merged").exists()
    assert (run / "data/raw/medical.csv").read_bytes() == (project / "data/raw/medical.csv").read_bytes()
    recipe = yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load((run / "params.yaml").read_text(encoding="utf-8"))
    assert params["lora"] == recipe["lora"]
    assert params["tokenize"] == recipe["tokenize"]
    trained = json.loads((run / "metrics/train.json").read_text())
    assert trained["steps"] > 1
    assert trained["last_loss"] < trained["first_loss"]
    assert json.loads((run / "metrics/eval.json").read_text())["items"] == 4
    assert json.loads((run / "metrics/export.json").read_text())["delta_nll"] < 0.01
    assert (run / "models/merged/chatglm3/tokenizer.model").is_file()
    # The project itself sees nothing of it, and the run is a repository of its own.
    assert "runs" not in git(project, "status", "--porcelain")
    assert "params.yaml" in git(run, "status", "--porcelain")
    again = python(project, "-m", "tuneline.cli.recipe", name, *changes)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "Running stage" not in again.stdout, "nothing changed, so nothing runs"


def test_a_recipe_that_is_not_there(project):
    result = python(project, "-m", "tuneline.cli.recipe", "chatglm3-legal")
    assert result.returncode == 1
    assert result.stderr.startswith("recipe: RECIPE is 'chatglm3-legal', expected one of chatglm3-legal-lora, ")
    assert not (project / "runs").exists()


def test_a_key_that_is_not_there(project):
    result = python(project, "-m", "tuneline.cli.recipe", "self-cognition", "lora.rank=3")
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
