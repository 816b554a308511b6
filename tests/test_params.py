"""params.yaml: every section typed, every mistake named with section, key, value and what was expected."""

from pathlib import Path

import pytest
import yaml

from tests.helpers.paths import ROOT
from tests.helpers.sections import SECTIONS
from tuneline.data.config import Data
from tuneline.models.config import Base
from tuneline.runtime.params import Section, load, read_params
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.lora import Lora
from tuneline.train.config.ptuning import PTuning
from tuneline.train.config.train import Train
from tuneline.train.config.tune import Tune


def test_the_shipped_file_is_complete():
    for section in SECTIONS:
        load(section, ROOT / "params.yaml")
    assert set(read_params(ROOT / "params.yaml")) == {section.__name__.lower() for section in SECTIONS}


def test_scientific_notation_written_by_dvc_is_a_number(workspace):
    workspace(train={"learning_rate": 1e-5})
    text = Path("params.yaml").read_text()
    # DVC writes YAML 1.2, which PyYAML would read back as text.
    for written in ("1e-05", "1.0e-05", "1e-5"):
        Path("params.yaml").write_text(text.replace("1.0e-05", written))
        assert load(Train).learning_rate == 1e-5
    assert isinstance(yaml.safe_load(Path("params.yaml").read_text())["train"]["learning_rate"], str)


def test_earlier_names_are_read_with_a_notice_and_both_at_once_are_an_error(workspace, params, capsys):
    params["train"]["scheduler"] = params["train"].pop("lr_scheduler_type")
    params["lora"]["targets"] = params["lora"].pop("target_modules")
    params["ptuning"]["encoder_hidden"] = params["ptuning"].pop("encoder_hidden_size")
    params["deepspeed"]["extra"] = params["deepspeed"].pop("config")
    workspace()
    assert load(Train).lr_scheduler_type == "cosine"
    assert load(Lora).target_modules == ["all"]
    assert load(PTuning).encoder_hidden_size == 128
    assert load(DeepSpeed).config == {}
    notices = capsys.readouterr().err.splitlines()
    assert (
        "params.yaml: train.scheduler is now called train.lr_scheduler_type; the earlier name is still read" in notices
    )
    assert len(notices) == 4
    workspace(lora={"target_modules": ["all"]})
    with pytest.raises(ValueError, match=r"lora.targets is the earlier name of target_modules, and both are there"):
        load(Lora)


def test_yaml_that_is_none_is_named_with_its_place(workspace):
    Path("params.yaml").write_text("lora:\n  r: [1\n")
    with pytest.raises(ValueError, match="params.yaml is not valid YAML: .* line"):
        load(Lora)
    Path("params.yaml").write_text("lora:\n  r: 1\n  r: 2\n")
    with pytest.raises(ValueError, match="params.yaml is not valid YAML: .*duplicate"):
        load(Lora)
    Path("params.yaml").write_text("- lora\n")
    with pytest.raises(ValueError, match=r"params.yaml holds \['lora'\], expected sections"):
        load(Lora)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        (Lora, "r", "abc", "lora.r is 'abc', expected an integer"),
        (Lora, "r", 8.5, "lora.r is 8.5, expected a"),
        (Lora, "r", True, "lora.r is True, expected an integer"),
        (Lora, "r", "8", "lora.r is '8', expected an integer"),
        (DeepSpeed, "zero_stage", True, "deepspeed.zero_stage is True, expected 0, 1, 2 or 3"),
        (Lora, "r", 0, "lora.r is 0, expected greater than 0"),
        (Lora, "target_modules", [], "lora.target_modules is []"),
        (Lora, "variant", "qlora", "lora.variant is 'qlora', expected 'lora', 'rslora', 'dora', 'pissa' or 'loraplus'"),
        (Train, "epochs", -1, "train.epochs is -1, expected greater than 0"),
        (Train, "learning_rate", "fast", "train.learning_rate is 'fast', expected a number"),
        (Train, "learning_rate", ".nan", "expected a"),
        (Train, "gradient_checkpointing", "yes please", "train.gradient_checkpointing is 'yes please'"),
        (DeepSpeed, "zero_stage", 7, "deepspeed.zero_stage is 7, expected 0, 1, 2 or 3"),
        (DeepSpeed, "offload", "param", "offload param needs zero_stage 3 (it is 1)"),
        (DeepSpeed, "config", {"bf16": {"enabled": True}}, "no ['bf16']: sections train and deepspeed say that"),
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
