"""No code of a checkpoint is run, and nobody is asked whether to: by the source itself, and with folders that would."""

import ast
import json
import os
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import base_section, canonical, make_base, make_tokenizer
from tuneline.base.canonicalize import canonicalize
from tuneline.export.verify import problems
from tuneline.models.chat_format import load_prompter
from tuneline.models.config import Base
from tuneline.models.conversion.file_names import file_shapes
from tuneline.models.loading import empty_model, load_adapter, load_model, load_tokenizer
from tuneline.models.untrusted.native_config import config_of, native_config
from tuneline.runtime.hashing import write_sums

AUTO = {"AutoConfig", "AutoTokenizer", "AutoProcessor", "AutoModel", "AutoModelForCausalLM"}
NATIVE = {"GenerationConfig", "PeftConfig"}
"""Classes of one file of JSON, which take no code."""
FORBIDDEN = {
    "apply_chat_template",
    "load_custom_generate",
    "get_kernel",
    "kernelize",
    "register_for_auto_class",
}
FORBIDDEN_NAMES = {"pipeline", "AutoPeftModel", "AutoPeftModelForCausalLM", "get_class_from_dynamic_module"}
FORBIDDEN_KEYS = {"custom_generate", "use_kernels", "allow_all_kernels", "code_revision", "attn_implementation"}

OURS = ("tuneline/models/decoding/generate.py", "custom_generate")
"""A decoding function of this project, given as such."""


def calls(root: Path):
    """Every call in the code that a run or a command uses, with its file; benchmarks load as what they compare with does."""
    for folder in ("stages", "tuneline", "chat"):
        for file in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield file.relative_to(root).as_posix(), node


def says_no(call: ast.Call) -> bool:
    """Whether the call itself has trust_remote_code=False."""
    return any(
        key.arg == "trust_remote_code" and isinstance(key.value, ast.Constant) and key.value.value is False
        for key in call.keywords
    )


def wrong_calls(root: Path) -> list[str]:
    """Loads that might run code, or ask; templates rendered in this process; pickles of more than weights."""
    found = []
    for file, call in calls(root):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
        where = f"{file}:{call.lineno}"
        if name in ("from_pretrained", "from_config") and owner not in NATIVE and not says_no(call):
            found.append(f"{where}: {owner}.{name} without trust_remote_code=False")
        if name in FORBIDDEN | FORBIDDEN_NAMES:
            found.append(f"{where}: {name}")
        if FORBIDDEN_KEYS & {key.arg for key in call.keywords if (file, key.arg) != OURS}:
            found.append(f"{where}: {name} with a choice of code")
        if f"{owner}.{name}" == "torch.load" and not any(
            key.arg == "weights_only" and getattr(key.value, "value", None) is True for key in call.keywords
        ):
            found.append(f"{where}: torch.load without weights_only=True")
    return found


def test_no_call_may_run_code_or_ask():
    assert wrong_calls(ROOT) == []
    assert sum(1 for _ in calls(ROOT)) > 5000


@pytest.mark.parametrize(
    "line",
    [
        "AutoConfig.from_pretrained(folder)",
        "AutoConfig.from_pretrained(folder, trust_remote_code=None)",
        "AutoTokenizer.from_pretrained(folder, **options)",
        "AutoModelForCausalLM.from_config(config)",
        "kind.from_pretrained(None, config=config)",
        "transformers.AutoProcessor.from_pretrained(folder)",
        "pipeline('text-generation', folder)",
        "transformers.pipeline('text-generation')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "tokenizer.apply_chat_template(messages)",
        "model.generate(custom_generate=folder)",
        "AutoModel.from_pretrained(folder, trust_remote_code=False, use_kernels=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=False, attn_implementation=chosen)",
        "AutoPeftModel(folder)",
    ],
)
def test_a_new_call_is_found(tmp_path, line):
    for folder in ("stages", "tuneline", "chat"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tuneline/a.py").write_text(f"def load(folder):\n    return {line}\n")
    assert len(wrong_calls(tmp_path)) == 1


MODULE = """
import pathlib
pathlib.Path({marker!r}).write_text(__file__)
from transformers import {base}
class Own({base}):
    pass
"""
FILES = {
    "configuration_own.py": "LlamaConfig", "modeling_own.py": "LlamaForCausalLM",
    "tokenization_own.py": "PreTrainedTokenizerFast",
    "custom_generate/generate.py": "GenerationConfig", "sitecustomize.py": "LlamaConfig", "jinja2.py": "LlamaConfig",
    "processing_own.py": "ProcessorMixin", "conftest.py": "LlamaConfig", "adapter.py": "LlamaConfig",
}  # fmt: skip
MAPS = {
    "AutoConfig": "configuration_own.Own", "AutoModel": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own",
    "AutoProcessor": "processing_own.Own",
}  # fmt: skip


def with_code(folder: Path, marker: Path, model_type: str | None = None) -> Path:
    """The folder with code that would leave a marker, and everything that would make a library run it."""
    for name, base in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(MODULE.format(marker=str(marker), base=base))
    for name, values in {
        "config.json": {"auto_map": MAPS} | ({"model_type": model_type} if model_type else {}),
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", "tokenization_own.Own"]}},
        "processor_config.json": {"auto_map": {"AutoProcessor": "processing_own.Own"}, "processor_class": "Own"},
        "preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "processing_own.Own"}},
        "generation_config.json": {"custom_generate": str(folder), "auto_map": MAPS},
    }.items():
        given = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        (folder / name).write_text(json.dumps(given | values))
    return folder


def answering_yes(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of Python in which every question is answered with yes, the stranger's folder being the current one or not."""
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{program}", *arguments],
        input="y\n" * 50, capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def questions(monkeypatch, tmp_path):
    """What was asked, each time answered with yes, in a folder that holds modules of its own."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or "y")
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize("model_type", [None, "own", "clip"], ids=["native", "unknown", "no language model"])
def test_verify_and_loading_run_nothing_and_ask_nothing(tmp_path, questions, model_type):
    marker = tmp_path / "ran"
    base = canonical(make_base(tmp_path / "source", "chatml", "llama"), tmp_path / "base", "float32")
    for name in ("README.md", "lineage.json"):
        (base / name).write_text("{}")
    with_code(base, marker, model_type)
    write_sums(base)
    found = problems(base)
    assert any("is not what a model of transformers has" in problem for problem in found) == (model_type is not None), (
        found
    )
    assert "trust_remote_code" not in str(found)
    for step in (
        lambda: load_prompter(load_tokenizer(base)),
        lambda: load_model(base, torch.float32),
        lambda: empty_model(base),
        lambda: file_shapes(base),
    ):
        with nullcontext() if model_type is None else suppress(ValueError):
            step()
    assert questions == []
    assert not marker.exists()


def test_a_command_asks_nothing_at_a_terminal(tmp_path):
    """The whole command, as a person starts it beside the stranger's files."""
    marker = tmp_path / "ran"
    base = make_base(tmp_path / "base", "chatml", "llama")
    for name in ("README.md", "lineage.json", "chat_template.jinja"):
        (base / name).write_text("{}")
    write_sums(with_code(base, marker, "own"))
    program = "from tuneline.cli.app import app\napp(sys.argv[1:], standalone_mode=False)"
    result = answering_yes(base, program, "verify", str(base))
    assert (
        f"verify: config.json is not what a model of transformers has: {base}/config.json is read only by code of its own"
        in result.stderr
    )
    assert "Do you wish to run" not in result.stdout + result.stderr
    assert not marker.exists()


@pytest.mark.parametrize("model_type", [None, "own", "clip"], ids=["native", "unknown", "no language model"])
def test_the_base_stage_runs_nothing_and_carries_no_code(tmp_path, questions, model_type):
    marker, folder = tmp_path / "ran", tmp_path / "base"
    source = with_code(make_base(tmp_path / "source", "chatml", "llama"), marker, model_type)
    params = Base.model_validate(base_section(source))
    if model_type is None:
        canonicalize(source, None, params, folder)
    else:
        with pytest.raises(ValueError, match="base.source") as error:
            canonicalize(source, None, params, folder)
        assert "trust_remote_code" not in str(error.value)
    assert questions == []
    assert not marker.exists()
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    assert not [name for name in written if name.endswith(".py")]
    assert not [name for name, content in written.items() if b"auto_map" in content or b"custom_generate" in content]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_attn_implementation", "someone/kernel"),
        ("attn_implementation", "someone/kernel@main:forward"),
        ("_attn_implementation", {"": "eager", "text_config": "someone/kernel"}),
        ("_attn_implementation_internal", "someone/kernel"),
        ("experts_implementation", "someone/experts"),
        ("use_kernels", True),
        ("kernel_config", {"RMSNorm": "someone/kernel:Norm"}),
        ("text_config", {"attn_implementation": "someone/kernel"}),
        ("parts", [{"_attn_implementation": "someone/kernel"}]),
    ],
)
def test_a_kernel_from_a_hub_is_refused(tmp_path, key, value):
    values = {"model_type": "llama", "hidden_size": 16, key: value}
    (tmp_path / "config.json").write_text(json.dumps(values))
    for load in (lambda: native_config(tmp_path), lambda: config_of(values)):
        with pytest.raises(ValueError, match="by which code would be fetched and run"):
            load()


@pytest.mark.parametrize("name", ["flash_attention_2", "eager", "sdpa", "paged|sdpa"])
def test_attention_is_this_machines_choice(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "_attn_implementation": name}))
    assert native_config(tmp_path)._attn_implementation is None


def test_a_folder_in_which_a_command_runs_lends_no_modules_to_the_child(tmp_path):
    marker = tmp_path / "ran"
    make_tokenizer("gemma").save_pretrained(tmp_path)
    for name in ("jinja2.py", "tokenizers.py", "json.py", "struct.py", "tuneline.py"):
        (tmp_path / name).write_text(MODULE.format(marker=str(marker), base="LlamaConfig"))
    program = (
        "from pathlib import Path\nfrom tuneline.models.untrusted.templates import _in_child\n"
        "from tuneline.models.untrusted.tokenizers import try_tokenizer\n"
        "print(_in_child('{{ 1 + 1 }}', {}), try_tokenizer(Path(sys.argv[1])))"
    )
    result = answering_yes(tmp_path, program, str(tmp_path))
    assert result.stdout.split() == ["2", "419"], result.stderr
    assert not marker.exists()


def test_an_adapter_runs_nothing(tmp_path, questions):

    marker = tmp_path / "ran"
    base = canonical(make_base(tmp_path / "source", "chatml", "llama"), tmp_path / "base", "float32")
    adapter = tmp_path / "adapter"
    get_peft_model(
        load_model(base, torch.float32), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    ).save_pretrained(adapter)
    path = adapter / "adapter_config.json"
    given = json.loads(path.read_text())
    given["auto_mapping"] = {"base_model_class": "Own", "parent_library": "adapter"}
    path.write_text(json.dumps(given | {"megatron_core": "adapter"}))
    for name in ("adapter.py", "modeling_own.py"):
        (adapter / name).write_text(MODULE.format(marker=str(marker), base="LlamaConfig"))
    load_adapter(load_model(base, torch.float32), adapter)
    assert questions == []
    assert not marker.exists()
