"""What is handed out means the same elsewhere: both spellings of configurations, generation settings, GGUF, Modelfile."""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import jinja2
import pytest
from transformers import GenerationConfig

from tests.helpers.families import FAMILIES, raw_checkpoint
from tests.helpers.tiny_models import canonical, make_tokenizer
from tuneline.base.generation import generation_sentence, settle_generation
from tuneline.export.gguf import converter
from tuneline.export.gguf.conversion import chatglm_template, unknown_ends
from tuneline.export.gguf.modelfile import modelfile, read_turns
from tuneline.export.gguf.ollama import turns_of
from tuneline.export.verify import private
from tuneline.models.chat_format import load_prompter
from tuneline.models.chat_templates import chat_template
from tuneline.models.conversion.portable import (
    config_spellings,
    make_portable,
    sliding_window_pattern,
    tokenizer_spellings,
)
from tuneline.runtime.atomic import atomic_output

CHATS = [
    [("user", "你好 {{ x }}")],
    [("system", "s s"), ("user", " a\n\nb"), ("assistant", "c"), ("user", "d")],
]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_is_spelled_for_older_readers(name, tmp_path):
    folder = canonical(raw_checkpoint(name, tmp_path / "source"), tmp_path / "base", "float32")
    config = json.loads((folder / "config.json").read_text())
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert config["rope_scaling"] is None
    rope = config["rope_parameters"]
    assert config["rope_theta"] == rope.get("full_attention", rope)["rope_theta"]
    assert ("partial_rotary_factor" in config) == ("partial_rotary_factor" in rope)
    assert ("rope_local_base_freq" in config) == (name == "Gemma 3")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["chat_template"] == (folder / "chat_template.jinja").read_text()
    before = (folder / "config.json").read_bytes()
    make_portable(folder)
    assert (folder / "config.json").read_bytes() == before


def test_scaled_positions_have_their_old_key():
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    added = config_spellings({"rope_parameters": llama3 | {"rope_theta": 5e5}}, {})
    assert added == {"rope_theta": 5e5, "rope_scaling": llama3}
    longrope = {
        "rope_type": "longrope",
        "short_factor": [1.0],
        "long_factor": [2.0],
        "original_max_position_embeddings": 9,
    }
    added = config_spellings({"rope_parameters": longrope}, {})
    assert added == {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}}
    assert config_spellings({"rope_parameters": {"rope_type": "proportional", "rope_theta": 1.0}}, {}) == {}
    assert config_spellings({"num_local_experts": 4}, {"num_experts": "num_local_experts"}) == {"num_experts": 4}


def test_a_pattern_of_windows_is_only_said_where_there_is_one():
    window, full = "sliding_attention", "full_attention"
    assert sliding_window_pattern([window, window, full, window]) == 3
    assert sliding_window_pattern([full, window, window]) is None
    assert sliding_window_pattern([window, full, full]) is None
    assert sliding_window_pattern(None) is None


def test_a_list_of_special_tokens_has_the_key_that_both_versions_read():
    written = tokenizer_spellings({"extra_special_tokens": ["<a>"], "is_local": True}, None)
    assert written["additional_special_tokens"] == ["<a>"]
    assert not {"extra_special_tokens", "is_local", "chat_template"} & written.keys()


def test_settings_that_change_greedy_answers_are_left_out_and_said():
    prompter = load_prompter(make_tokenizer("chatml"))
    config = GenerationConfig.from_dict(
        {"eos_token_id": [1, 2], "temperature": 0.7, "do_sample": True, "repetition_penalty": 1.1, "chat_format": "x"}
    )
    settled = settle_generation(config, prompter, 0)
    assert settled["kept"] == {"do_sample": True, "temperature": 0.7}
    assert settled["left_out"] == {"repetition_penalty": 1.1, "chat_format": "x"}
    assert set(config.eos_token_id) == {1, 2, *prompter.stop_ids}
    written = json.loads(config.to_json_string())
    assert not {"repetition_penalty", "chat_format"} & written.keys()
    assert "repetition_penalty 1.1" in str(generation_sentence(settled))


@pytest.mark.parametrize("family", ["chatml", "gemma", "glm4", "llama3"])
def test_the_modelfile_says_what_the_template_says(family):
    """By Go's own text/template, which is what Ollama has."""
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = chat_template(family)
    turns = turns_of(tokenizer)
    text = modelfile("m.gguf", turns, ["<eos>"], 99999, "be brief")
    assert text.startswith("FROM ./m.gguf\n")
    assert 'SYSTEM """be brief"""' in text
    assert 'PARAMETER num_ctx 8192\nPARAMETER stop "<eos>"\n' in text
    template = text.partition('TEMPLATE """')[2].partition('"""')[0]
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        folded = messages
        if turns.folds_system and messages[0]["role"] == "system":
            folded = [
                {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"},
                *messages[2:],
            ]
        wanted = tokenizer.apply_chat_template(folded, tokenize=False, add_generation_prompt=True)
        assert turns.text(chat) == wanted
        if shutil.which("go"):
            given = json.dumps({"Template": template, "Messages": messages})
            program = Path(__file__).parent / "helpers/render.go"
            said = subprocess.run(["go", "run", str(program)], input=given, capture_output=True, text=True, check=True)
            assert said.stdout == wanted


DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of Qwen2's kind."""
ENDED = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}<|endoftext|>{% endif %}"
)
"""Of Phi-4-mini's kind."""


@pytest.mark.parametrize(
    ("template", "system"), [(DEFAULT_SYSTEM, "Be kind."), (ENDED, None)], ids=["default", "ended"]
)
def test_a_template_that_adds_to_a_conversation_is_followed(template, system):
    def render(chat, generation):
        messages = [{"role": role, "content": content} for role, content in chat]
        return jinja2.Template(template).render(messages=messages, add_generation_prompt=generation)

    turns = read_turns(render)
    assert turns.default_system == system
    assert all(turns.text(chat) == render(chat, True) for chat in CHATS)
    assert ('SYSTEM """Be kind."""' in modelfile("m.gguf", turns, [], 10, None)) == (system is not None)
    assert 'SYSTEM """own"""' in modelfile("m.gguf", turns, [], 10, "own")


def test_chatglm_has_no_control_word_that_text_contains():
    template = chatglm_template(chat_template("chatglm3"), {"，": ","})
    assert template.startswith("[gMASK]<|sop|>")
    assert '(message.content | replace("，", ","))' in template


def test_only_unknown_ends_are_said():
    assert unknown_ends([2, 5, 7], 2, ["</s>", "<|im_end|>", "<|user|>"]) == [(7, "<|user|>")]


def test_what_a_library_wrote_for_its_user_alone_is_readable(tmp_path):
    with atomic_output(tmp_path / "out") as partial:
        partial.mkdir()
        (partial / "model.safetensors").touch(0o600)
    assert (tmp_path / "out/model.safetensors").stat().st_mode & 0o044
    for mode in (0o600, 0o640):
        (tmp_path / "out/model.safetensors").chmod(mode)
        (said,) = private(tmp_path / "out")
        assert said.startswith("model.safetensors can't be read by other users: chmod")
    (tmp_path / "out/model.safetensors").chmod(0o644)
    assert list(private(tmp_path / "out")) == []
    (tmp_path / "out/inner").mkdir()
    (tmp_path / "out/inner/a").touch()
    for folder in ("inner", ""):
        (tmp_path / "out" / folder).chmod(0o750)
    assert [line.partition(" ")[0] for line in private(tmp_path / "out")] == [".", "inner"]


def test_the_converters_environment_has_the_packages_of_the_project_that_runs_it(tmp_path, monkeypatch):
    """Whichever project made it."""
    own = tmp_path / "llama.cpp"
    own.mkdir()
    (own / converter.SCRIPT).touch()
    monkeypatch.setenv("TUNELINE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(converter, "_make", Path.mkdir)
    found = converter.find_converter(own)
    (listed,) = found.python.parents[1].rglob("project.pth")
    listed.write_text("/gone/site-packages\n")
    assert converter.find_converter(own) == found
    assert listed.read_text() == f"{sysconfig.get_path('purelib')}\n"
