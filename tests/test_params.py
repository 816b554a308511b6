"""params.yaml: every section typed, every mistake named with section, key, value and what was expected."""

from pathlib import Path

import pytest
import yaml

from tests.helpers.paths import ROOT
from tuneline.base.config import Base
from tuneline.data.config import Data
from tuneline.evaluate.config import Evaluate
from tuneline.export.config import Export
from tuneline.fetch.config import Fetch
from tuneline.runtime.params import Section, load
from tuneline.tokenize.config import Tokenize
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.freeze import Freeze
from tuneline.train.config.lora import Lora
from tuneline.train.config.ptuning import PTuning
from tuneline.train.config.train import Train
from tuneline.train.config.tune import Tune

SECTIONS = (Fetch, Base, Data, Tokenize, Tune, Lora, PTuning, Freeze, Train, DeepSpeed, Evaluate, Export)
FILES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_shipped_file_is_complete(path):
    for section in SECTIONS:
        load(section, path)
    known = {section.__name__.lower() for section in SECTIONS}
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == known


def test_scientific_notation_written_by_dvc_is_a_number(workspace):
    workspace(train={"learning_rate": 1e-5})
    text = Path("params.yaml").read_text()
    # PyYAML writes 1.0e-05; DVC writes YAML 1.2, which PyYAML reads back as text.
    Path("params.yaml").write_text(text.replace("1.0e-05", "1e-05"))
    assert isinstance(yaml.safe_load(Path("params.yaml").read_text())["train"]["learning_rate"], str)
    assert load(Train).learning_rate == 1e-5


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        (Lora, "r", "abc", "lora.r is 'abc', expected an integer"),
        (Lora, "r", 8.5, "lora.r is 8.5, expected a"),
        (Lora, "r", True, "lora.r is True, expected an integer"),
        (Lora, "r", 0, "lora.r is 0, expected greater than 0"),
        (Lora, "targets", [], "lora.targets is []"),
        (Lora, "variant", "qlora", "lora.variant is 'qlora', expected 'lora', 'rslora', 'dora', 'pissa' or 'loraplus'"),
        (Train, "epochs", -1, "train.epochs is -1, expected greater than 0"),
        (Train, "learning_rate", "fast", "train.learning_rate is 'fast', expected a number"),
        (Train, "learning_rate", ".nan", "expected a"),
        (Train, "gradient_checkpointing", "yes please", "train.gradient_checkpointing is 'yes please'"),
        (DeepSpeed, "zero_stage", 7, "deepspeed.zero_stage is 7, expected 0, 1, 2 or 3"),
        (DeepSpeed, "offload", "param", "offload param needs zero_stage 3 (it is 1)"),
        (DeepSpeed, "extra", {"bf16": {"enabled": True}}, "no ['bf16']: sections train and deepspeed say that"),
        (Train, "early_stopping", 3, "early_stopping needs eval_fraction above 0"),
        (Train, "betas", [0.9, 1.5], "train.betas.1 is 1.5, expected less than 1"),
        (DeepSpeed, "processes", 0, "deepspeed.processes is 0, expected auto or an integer above 0"),
        (DeepSpeed, "processes", "many", "deepspeed.processes is 'many', expected auto or an integer above 0"),
        (Data, "sources", [{"path": "a.csv", "template": "{question"}], "balanced braces"),
        (Data, "sources", [{"path": "a.csv", "template": "{question.foo}"}], "plain column names in braces"),
        (Data, "sources", [{"path": "a.csv", "template": "answer!"}], "a template that contains {question}"),
        (Base, "revision", "main", "base.revision is 'main', expected 40 hex digits"),
        (Data, "sources", [{"path": "/etc/passwd"}], "inside data/raw"),
        (Data, "sources", [{"path": "a.csv"}, {"path": "a.jsonl"}], "differ in more than the suffix"),
        (Data, "sources", [{"path": "a.csv", "colour": "red"}], "data.sources.0.colour is not a known key"),
    ],
)
def test_a_wrong_value_is_named(workspace, section, key, value, expected):
    workspace(**{section.__name__.lower(): {key: value}})
    with pytest.raises(ValueError, match="params.yaml: ") as error:
        load(section)
    assert expected in str(error.value)


def test_all_mistakes_are_reported_at_once(workspace, params):
    del params["lora"]["alpha"]
    workspace(lora={"r": "abc", "rank": 8})
    with pytest.raises(ValueError, match="lora") as error:
        load(Lora)
    message = str(error.value)
    assert "lora.alpha is missing" in message
    assert "lora.r is 'abc'" in message
    assert "lora.rank is not a known key" in message
    assert "r, alpha, dropout" in message


def test_a_missing_section_and_a_missing_file(workspace, params, tmp_path, monkeypatch):
    params["lora"] = None
    workspace()
    with pytest.raises(ValueError, match="section 'lora' is None, expected keys r, alpha"):
        load(Lora)
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(ValueError, match="run from the root of the project"):
        load(Lora)


def test_sections_are_frozen():
    section = Tune(method="lora")
    with pytest.raises(ValueError, match="frozen"):
        section.method = "full"  # type: ignore[misc]
    assert issubclass(Tune, Section)
