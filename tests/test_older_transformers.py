"""transformers 4.57 reads a base of every family as this one does: ids, chat template, logits.

TUNELINE_TF4_VENV is the folder of an environment with it (`uv venv tf4; uv pip install -p tf4 transformers==4.57.6 torch`).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers.published import PUBLISHED, publish
from tests.helpers.tiny_models import TEXTS, canonical
from tuneline.models.loading import load_model, load_tokenizer

pytestmark = pytest.mark.matrix
VENV = os.environ.get("TUNELINE_TF4_VENV")
SCRIPT = Path(__file__).parent / "helpers/older_transformers.py"
CHAT = [
    {"role": "user", "content": "你好 world"},
    {"role": "assistant", "content": "好"},
    {"role": "user", "content": "a  b\n\n2"},
]


@pytest.mark.skipif(not VENV, reason="TUNELINE_TF4_VENV names no environment with transformers 4.57")
@pytest.mark.parametrize("name", PUBLISHED)
def test_it_reads_the_same(name, tmp_path):
    folder = canonical(publish(name, tmp_path / "source"), tmp_path / "base", "float32")
    ids = [(place * 7) % 200 + 10 for place in range(40)]
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"texts": TEXTS, "chat": CHAT, "input": ids}))
    result = subprocess.run(
        [f"{VENV}/bin/python", str(SCRIPT), str(folder), str(given)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    theirs = json.loads(result.stdout.splitlines()[-1])
    tokenizer = load_tokenizer(folder)
    assert theirs["ids"] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert theirs["chat"] == tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    if theirs["logits"] is None:
        pytest.skip("transformers 4.57 does not have this architecture")
    with torch.no_grad():
        ours = load_model(folder, torch.float32)(input_ids=torch.tensor([ids])).logits[0]
    assert float((ours - torch.tensor(theirs["logits"])).abs().max()) < 1e-4
