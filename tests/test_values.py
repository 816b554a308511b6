"""Every key of params.yaml with many wrong values: refused in one sentence by its name, or on the list of what is fine."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.sections import SECTIONS
from tuneline.runtime.params import parse, read_params
from tuneline.sections import check_sections
from tuneline.train.checks import check_rank

FILE = ROOT / "params.yaml"
WRONG: list[Any] = [
    math.inf, math.nan, 2**70, -(2**70), 2**31, -1, -0.5, 0, 1e300, 2.5, True, False, None, "", "  ", " a", "a\nb", "\x00",
    "yes", "on", "true", "1", "1e-5", [], {}, [[]], ["a", "a"], [""], [True], [-1], [2**70], [math.nan], {"a": [1]},
    ".nan", ".NaN", ".inf", "-.INF",
]  # fmt: skip
TEXT = ("yes", "on", "true", "1", "1e-5")
"""Fine where any text is."""
NULL = (None,)
FINE: dict[str, tuple[Any, ...]] = {
    "fetch.packages": ([],), "base.source": TEXT, "base.revision": NULL, "base.sha256": NULL,
    "base.max_perplexity_zh": (2.5, None), "base.max_perplexity_en": (2.5, None),
    "data.heldout_source": NULL, "data.validation_source": NULL, "data.exclude": (*TEXT, [], ["a", "a"]),
    "data.seed": (0, 2**31), "data.max_leak_rate": (0, "1e-5"), "data.max_reject_rate": (0, "1e-5"), "data.repairs": ([],),
    "data.train_share": ("1e-5",),
    "data.placeholders": ({},), "tokenize.max_prompt_tokens": NULL,
    "lora.alpha": (2.5, "1e-5"), "lora.dropout": (0, "1e-5"), "lora.loraplus_ratio": (2.5,), "lora.target_modules": TEXT,
    "lora.layers_to_transform": NULL, "lora.layers_pattern": NULL, "lora.modules_to_save": ([],), "lora.quantize": NULL,
    "ptuning.projection": (True, False), "freeze.patterns": ([],),
    "train.init": (*TEXT, None), "train.init_sha256": NULL, "train.replay": NULL,
    "train.seed": (0, 2**31), "train.epochs": (2.5, "1e-5"),
    "train.max_steps": NULL, "train.learning_rate": (2.5, "1e-5"), "train.weight_decay": (0, "1e-5"),
    "train.warmup_ratio": (0, "1e-5"), "train.warmup_steps": (0, None), "train.max_grad_norm": (2.5, "1e-5"),
    "train.neftune_alpha": (2.5, None, "1e-5"), "train.micro_tokens": NULL, "train.gradient_checkpointing": (True, False),
    "train.loss_filter": (False,), "train.deterministic": (True, False), "train.eval_fraction": (0, "1e-5"),
    "train.early_stopping": NULL, "train.report_to": ([],), "train.eval_metrics": ([],), "evaluate.metrics": ([],),
    "deepspeed.zero_stage": (0,), "deepspeed.hostfile": (*TEXT, None), "deepspeed.master_port": NULL,
    "deepspeed.config": ({}, {"a": [1]}),
    "evaluate.constrain": NULL, "evaluate.general": (*TEXT, None),
    "evaluate.url": NULL, "evaluate.base_url": NULL, "evaluate.model": (*TEXT, None),
    "evaluate.base_model": (*TEXT, None), "evaluate.api_key_env": ("yes", "on", "true", None),
    "export.max_delta_nll": (2.5, "1e-5"),
}  # fmt: skip
"""Values of the table that a key may have."""
OF_SEVERAL = {"lora.layers_pattern": "lora.layers_to_transform"}
"""Keys of which the text is fine by itself, and the key that is named beside them."""


def is_fine(key: str, value: Any) -> bool:
    return any(type(value) is type(one) and value == one for one in FINE.get(key, ()))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_wrong_value_of_any_key_is_refused_by_its_name(section):
    document, name, surprises = read_params(FILE), section.__name__.lower(), []
    for key in section.model_fields:
        full = f"{name}.{key}"
        assert sum(not is_fine(full, value) for value in WRONG) >= 12
        for value in WRONG:
            changed = copy.deepcopy(document)
            changed[name][key] = value
            try:
                parse(section, changed, FILE)
                message = ""
            except ValueError as error:
                message = str(error)
            named = message.count("\n") == 0 and "expected" in message and "(line " in message
            named = named and (full in message or OF_SEVERAL.get(full, full) in message)
            if is_fine(full, value) != (not message) or (message and not named):
                surprises.append((full, value, message))
    assert surprises == []


@pytest.fixture
def load(workspace):
    def change(**sections: dict) -> None:
        workspace(**sections)
        check_sections(lambda section: parse(section, read_params()))

    return change


def test_all_sections_are_checked_at_once_each_key_with_its_line(load):
    with pytest.raises(ValueError, match="params.yaml") as error:
        load(lora={"r": 2**70}, train={"learning_rate": 1e300}, freeze={"layers": 0}, export={"max_delta_nll": 1e300})
    lines = Path("params.yaml").read_text().splitlines()
    for key in ("lora.r", "train.learning_rate", "freeze.layers", "export.max_delta_nll"):
        assert f"{key} is " in str(error.value)
        line = int(str(error.value).partition(f"{key} is ")[2].partition("(line ")[2].partition(")")[0])
        assert key.partition(".")[2] in lines[line - 1]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"train": {"warmup_steps": 20, "max_steps": 10}}, "train.warmup_steps is 20, expected warmup_steps"),
        ({"train": {"micro_tokens": None, "micro_batch_size": 16, "batch_size": 8}}, "at most batch_size 8"),
        ({"train": {"init_sha256": "0" * 64}}, "set both, or neither"),
        ({"train": {"early_stopping": 2, "eval_fraction": 0.0}}, "train.early_stopping is 2, expected null where"),
        ({"train": {"eval_metrics": ["rouge_l"]}}, "train.eval_metrics is ['rouge_l'], expected [] where"),
        ({"train": {"eval_metrics": ["accuracy"], "eval_fraction": 0.1}}, "['accuracy'], expected file.py:function"),
        ({"train": {"best_by": "rouge_l", "eval_fraction": 0.1}}, "train.best_by is 'rouge_l', expected best_by"),
        ({"train": {"eval_fraction": 0.1}, "data": {"validation_source": {"path": "v.csv"}}}, "expected 0: data.validation"),
        ({"tokenize": {"max_tokens": 64, "max_prompt_tokens": 128}}, "tokenize.max_prompt_tokens is 128, expected"),
        ({"lora": {"target_modules": ["q_proj", "q_proj"]}}, "lora.target_modules is ['q_proj', 'q_proj'], expected each"),
        ({"train": {"report_to": ["dvclive", "dvclive"]}}, "train.report_to is ['dvclive', 'dvclive'], expected each once"),
        ({"tune": {"method": "prompt"}, "train": {"neftune_alpha": 5}}, "train.neftune_alpha is 5, expected null"),
        ({"deepspeed": {"zero_stage": 1.0}}, "deepspeed.zero_stage is 1.0, expected 0, 1, 2 or 3"),
        ({"deepspeed": {"config": {"a": math.nan}}}, "deepspeed.config"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together(load, sections, expected):
    with pytest.raises(ValueError, match="params.yaml") as error:
        load(**sections)
    assert expected in str(error.value)


def test_a_rank_above_the_width_of_the_base():
    check_rank(16, {"hidden_size": 16})
    check_rank(16, {})
    with pytest.raises(ValueError, match="lora.r is 64, expected at most 32, which is the width"):
        check_rank(64, {"text_config": {"hidden_size": 32}})


BOMB = "".join(
    f"{name}: &{name} [{', '.join([before] * 9)}]\n"
    for before, name in zip(["x", *(f"*{one}" for one in "abcdefgh")], "abcdefghi", strict=True)
)
"""A list of lists of lists, nine levels deep, in a few lines."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora:\n  r: " + "9" * 5000, "is not valid YAML"),
        ("lora:\n  r: 0x" + "f" * 9000, "lora.r is a number of 36000 bits, expected"),
        ("lora: " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
        (f"{BOMB}lora:\n  r: *i\n", "lora.r is [["),
        ("lora:\n  r: &r [*r]\n", "expected"),
        ("lora:\n  r: 1\n  r: 2\n", "duplicate"),
        ("lora:\n  r: !!python/object/apply:os.system [true]\n", "is not valid YAML"),
        ("lora:\n  r: \x00\n", "is not valid YAML"),
        ("lora:\n  r: 2026-13-45\n", "is not valid YAML"),
    ],
)  # fmt: skip
def test_a_file_that_is_a_trap_is_one_short_sentence(tmp_path, text, expected):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml") as error:
        parse(next(one for one in SECTIONS if one.__name__ == "Lora"), read_params(path), path)
    assert expected in str(error.value)
    assert len(str(error.value)) < 2000
