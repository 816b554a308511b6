"""Recipes run beside the project, on a tiny ChatGLM3 checkpoint and raw files of the form that each recipe asks for."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.helpers.chatglm3 import SIZES, checkpoint, train_pieces
from tests.helpers.commands import git, python
from tests.helpers.paths import ROOT
from tests.helpers.reading import section as data_section
from tests.helpers.recipe_rows import RECIPES
from tests.helpers.sections import SECTIONS
from tests.helpers.tiny_models import base_section
from tuneline.cli.recipe import merge
from tuneline.data.convert import convert
from tuneline.runtime.params import load, read_params, read_yaml

SMALL = [
    "base.max_perplexity_zh=null", "base.max_perplexity_en=null", "data.heldout=4", "train.max_steps=4",
    "train.learning_rate=1e-2", "train.save_steps=2", "evaluate.max_new_tokens=4", "export.dtype=float32",
    "export.layout=chatglm3",
]  # fmt: skip
OF_THEIR_OWN = {"chatglm3-triples-freeze": ["freeze.layers=1"]}
"""Two layers are all that the tiny checkpoint has."""


def test_every_chatglm3_recipe_is_tried():
    assert set(RECIPES) == {path.stem for path in (ROOT / "recipes").glob("chatglm3-*.yaml")}


TASKS = {"chatglm3-classification": "label"} | {name: "triples" for name in RECIPES if "triples" in name}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_the_rows_that_it_asks_for(tmp_path, name):
    RECIPES[name](tmp_path / "raw")
    recipe = read_yaml(ROOT / f"recipes/{name}.yaml")["data"]
    (tmp_path / "raw/self_cognition.jsonl").write_bytes((ROOT / "data/raw/self_cognition.jsonl").read_bytes())
    params = data_section(recipe["sources"], seed=recipe["seed"], placeholders=recipe["placeholders"], heldout=4)
    outputs = [tmp_path / f"{kind}.jsonl" for kind in ("train", "heldout", "rejects", "removed")]
    convert(params, tmp_path / "raw", *outputs)
    train, heldout, rejects, _ = ([json.loads(line) for line in path.read_text().splitlines()] for path in outputs)
    assert (len(heldout), rejects) == (4, [])
    assert len(train) >= 10
    assert {row["task"] for row in train} == {TASKS.get(name, "qa")}
    texts = [message["content"] for row in train for message in row["messages"]]
    if name == "chatglm3-psychology-lora":
        assert any("我是小航" in text for text in texts)
        assert any("你是咨询师" in text for text in texts)
    if name == "chatglm3-medical-lora":
        assert {row["messages"][0]["role"] for row in train} == {"system"}


@pytest.fixture
def tiny_chatglm3(tmp_path) -> dict:
    """A checkpoint as a user would place it, and its `base` section."""
    source = tmp_path / "chatglm3-tiny"
    checkpoint(source, train_pieces(tmp_path / "pieces", "identity", 420), SIZES["grouped"] | {"seq_length": 4096})
    return base_section(source)


@pytest.mark.story
@pytest.mark.matrix
@pytest.mark.parametrize("name", RECIPES)
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
    "chatglm3-classification": "8fe86a99b55053ad",
    "chatglm3-demo-lora": "afd8e2a4f4467ae1",
    "chatglm3-generation": "c4520f9355e49a71",
    "chatglm3-legal-lora": "445235f3e980f86d",
    "chatglm3-medical-dialogue": "57ccbfddf4b6379f",
    "chatglm3-medical-lora": "07a26ac66a62d18e",
    "chatglm3-psychology-lora": "8a05b8104396d655",
    "chatglm3-triples-freeze": "095bd6365e227aa4",
    "chatglm3-triples-lora": "cc56dc81f50042ac",
    "chatglm3-triples-p-tuning-v2": "b0ad07443ad0f3cf",
    "chatglm3-triples-p-tuning": "2c2afdaa65daaa7e",
    "consultations": "52646161ed401917",
    "entities": "27c4a274944a3c37",
    "lawbench-gpu": "db27b9f4af924777",
    "self-cognition": "e00d120342bf5e41",
    "topics": "4dd010361d919143",
    "triples": "30b88d1ec2874181",
}
"""sha256, the first 16 digits, of all parameters with which each recipe runs, as JSON with sorted keys.

A recipe is what was published, so these change only when a recipe does, or when params.yaml gets a new key.
"""
DECIDES = {
    "fetch": ("packages",),
    "data": ("sources", "heldout", "seed", "placeholders"),
    "tokenize": ("max_tokens", "max_prompt_tokens", "overlong", "mask"),
    "tune": ("method",),
    "lora": ("r", "alpha", "dropout", "variant", "target_modules", "modules_to_save"),
    "ptuning": ("num_virtual_tokens", "projection", "encoder_hidden_size"),
    "freeze": ("layers", "patterns"),
    "train": (
        "seed", "epochs", "max_steps", "learning_rate", "weight_decay", "betas", "warmup_ratio", "warmup_steps",
        "lr_scheduler_type", "max_grad_norm", "batch_size", "micro_batch_size", "micro_tokens", "gradient_checkpointing",
        "eval_fraction", "save_steps", "logging_steps",
    ),
    "deepspeed": ("zero_stage", "offload"),
    "evaluate": ("max_new_tokens", "batch_size", "constrain"),
    "export": ("dtype", "max_delta_nll"),
}  # fmt: skip
"""What a recipe says itself, even where it is the default today: another default must change no recipe."""
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
def test_a_recipe_says_itself_what_decides_its_result(name):
    path = ROOT / f"recipes/{name}.yaml"
    recipe = read_yaml(path)
    method = recipe["tune"]["method"]
    unsaid = [
        f"{section}.{key}"
        for section, keys in DECIDES.items()
        for key in keys
        if key not in recipe.get(section, {}) and ONLY_OF.get(section, method) == method
    ]
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
    assert result.stderr.startswith("recipe: RECIPE is 'chatglm3-legal', expected one of chatglm3-classification, ")
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
