"""All stages on a ChatGLM3 checkpoint: training started as DVC starts it, the others in this process."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

import stages.base
import stages.convert
import stages.evaluate
import stages.export
import stages.predict_base
import stages.tokenize
from tests.helpers.chatglm3 import SIZES, checkpoint, stored_tensors
from tests.helpers.commands import python
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section
from tuneline.models.chat_format import load_prompter
from tuneline.models.loading import load_adapter, load_model, load_tokenizer

ANSWER = """
import sys, json, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=False)
ids = torch.tensor([json.loads(sys.argv[2])])
said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
print(json.dumps(said[0].tolist()))
"""


@pytest.mark.story
def test_all_stages_on_a_chatglm3_checkpoint(project, pieces, tmp_path, monkeypatch):
    checkpoint(
        tmp_path / "source", pieces["nmt_nfkc"][0], SIZES["grouped"] | {"seq_length": 1024}, "shards", torch.float16
    )
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["base"] |= base_section(tmp_path / "source")
    params["lora"]["target_modules"] = ["query_key_value", "dense_4h_to_h"]
    params["export"] |= {"layout": "chatglm3", "dtype": "float32"}
    params["tokenize"]["max_tokens"] = 1024
    (project / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    monkeypatch.chdir(project)
    for stage in (stages.base, stages.convert, stages.tokenize):
        run_main(stage)
    result = python(project, "-m", "stages.train")
    assert result.returncode == 0, result.stderr[-4000:]
    for stage in (stages.predict_base, stages.evaluate, stages.export):
        run_main(stage)
    trained = json.loads((project / "metrics/train.json").read_text())
    assert trained["last_loss"] < trained["first_loss"]
    assert json.loads((project / "metrics/export.json").read_text())["delta_nll"] < 0.01
    # In a process that has only transformers, the merged model says what the adapter says.
    tuned = load_adapter(load_model(project / "models/base", torch.float32), project / "models/adapter")
    prompter = load_prompter(load_tokenizer(project / "models/base"))
    ids = prompter.generation_prompt([{"role": "user", "content": "感冒了怎么办"}])
    given = torch.tensor([ids])
    said = tuned.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False
    ).tolist()[0]
    command = [sys.executable, "-c", ANSWER, str(project / "models/merged"), json.dumps(ids)]
    bare = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert bare.returncode == 0, bare.stderr[-2000:]
    assert json.loads(bare.stdout) == said
    assert len(said) > len(ids)
    merged = project / "models/merged"
    own = stored_tensors(merged / "chatglm3")
    fused = own["transformer.encoder.layers.1.self_attention.query_key_value.weight"]
    native = stored_tensors(merged)
    apart = [native[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(fused, torch.cat(apart))
    assert trained["trainable_parameters_as_chatglm"] < trained["trainable_parameters"]
