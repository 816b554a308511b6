"""Packages that ask servers of OpenAI's API, against ours: each in an environment that has it.

TUNELINE_CLIENTS_VENV is the folder of one (`uv venv clients; uv pip install -p clients langchain-openai litellm instructor dspy
"llama-index-llms-openai-like>=0.8" "lm-eval[api]" transformers`), or several with `:` between them: EvalScope needs other
versions than these (`uv pip install -p scope evalscope "numpy>=2"`).
"""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers.call_templates import MINISTRAL
from tests.helpers.serving import serving
from tests.helpers.taught_calls import TOOLS, lessons, made, teach
from tests.helpers.tiny_models import canonical

pytestmark = pytest.mark.matrix
VENVS = [Path(one) for one in os.environ.get("TUNELINE_CLIENTS_VENV", "").split(":") if one]
SCRIPT = Path(__file__).parent / "helpers/real_clients.py"
PACKAGES = ("openai", "langchain", "llama_index", "litellm", "instructor", "dspy", "lm_eval", "evalscope")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A project whose base has learnt to call a function."""
    from tuneline.models.chat_format import load_prompter
    from tuneline.models.loading import load_model, load_tokenizer

    folder = tmp_path_factory.mktemp("taught")
    base = made(folder, MINISTRAL)
    network, tokenizer = load_model(base, torch.float32), load_tokenizer(base)
    prompter = load_prompter(tokenizer)
    teach(network, [prompter.training_row(one["messages"], "last_answer", tools=TOOLS) for one in lessons()])
    # Some clients' own prompts are longer than any lesson.
    network.config.max_position_embeddings = 4096
    network.save_pretrained(folder / "taught")
    tokenizer.save_pretrained(folder / "taught")
    canonical(folder / "taught", folder / "models/base", "float32")
    return folder


@pytest.fixture(scope="module")
def engine(taught):
    from chat.engine import Engine
    from chat.models import Models

    with contextlib.chdir(taught):
        engine = Engine(Models(dtype="float32"))
        engine.models.get("base")
    return engine


@pytest.mark.skipif(not VENVS, reason="TUNELINE_CLIENTS_VENV names no environment with clients")
@pytest.mark.parametrize("package", PACKAGES)
def test_it_is_answered(taught, engine, package):
    folder = "langchain_openai" if package == "langchain" else package
    own = [venv for venv in VENVS if list(venv.glob(f"lib/python*/site-packages/{folder}"))]
    if not own:
        pytest.skip(f"no environment of TUNELINE_CLIENTS_VENV has {package}")
    with serving(engine) as address:
        command = [f"{own[0]}/bin/python", str(SCRIPT), package, f"{address}/v1", str(taught / "models/base")]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
