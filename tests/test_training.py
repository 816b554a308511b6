"""One training process: dtypes, sameness, and the refusal to go on with nonsense. No launcher, one rank."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.commands import one_rank, python
from tests.helpers.methods import method
from tests.helpers.stages import training_words
from tests.helpers.tiny_models import make_base
from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.token_file import Tokens, write_tokens
from tuneline.models.likelihood import answer_nll
from tuneline.models.loading import load_adapter, load_model
from tuneline.train import methods
from tuneline.train.batching import split
from tuneline.train.lora import resolve_targets

LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "variant": "lora", "target_modules": ["all"]}


@pytest.fixture
def ready(workspace, canonical_base, params):
    """A workspace with a base and 24 rows to train on."""
    shutil.copytree(canonical_base, "models/base")
    Path("data/processed").mkdir()
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in torch.randint(8, 40, (24,), generator=generator).tolist():
        ids = torch.randint(5, 100, (length,), generator=generator).tolist()
        # Something that can be learnt: whatever comes first, the answer is one token over and over.
        ids[4:] = [7] * (length - 4)
        rows.append(Encoded(ids, [IGNORE_INDEX] * 4 + ids[4:]))
    write_tokens(Path("data/processed/tokens.safetensors"), rows)
    params["lora"] |= LORA
    params["train"] |= {"max_steps": 6, "learning_rate": 0.02, "batch_size": 4, "micro_batch_size": 2, "save_steps": 2}
    params["train"] |= {"dtype": "float32", "warmup_ratio": 0.0}
    workspace()
    return workspace


def train(resume: str | None = None, **env: str):
    for folder in ("scratch", "metrics"):
        Path(folder).mkdir(exist_ok=True)
    return python(Path.cwd(), "-m", "tuneline.train.run", *training_words(resume), env=one_rank() | env)


def adapter() -> bytes:
    return Path("models/adapter/adapter_model.safetensors").read_bytes()


def test_it_learns_and_resumes_to_the_same_bytes(ready, tmp_path):
    # No compiler is needed: the ops that DeepSpeed would compile are never asked for. PATH holds none, and no ninja.
    result = train(PATH=str(tmp_path), CC="none", CXX="none", TORCH_EXTENSIONS_DIR=str(tmp_path / "extensions"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert not (tmp_path / "extensions").exists()
    summary = json.loads(Path("metrics/train.json").read_text())
    assert summary["last_loss"] < summary["first_loss"]
    assert (summary["steps"], summary["rows_seen"]) == (6, 24)
    straight, curve = adapter(), Path("metrics/loss.csv").read_bytes()
    tensors = load_file("models/adapter/adapter_model.safetensors")
    assert all(tensor.dtype == torch.float32 and tensor.numel() for tensor in tensors.values())
    assert any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    # Go on from the middle: the same bytes.
    assert (Path("scratch") / "checkpoint-4/manifest.json").exists()
    shutil.rmtree("models/adapter")
    result = train(resume="scratch/checkpoint-4")
    assert result.returncode == 0, result.stderr[-3000:]
    assert adapter() == straight
    assert Path("metrics/loss.csv").read_bytes() == curve


def test_validation_rows_choose_the_checkpoint_and_end_the_run(ready):
    """A rate so high that the loss rises again: the best step is kept, and training stops before its end."""
    ready(
        train={
            "eval_fraction": 0.25,
            "early_stopping": 2,
            "save_steps": 1,
            "max_steps": 40,
            "epochs": 99,
            "logging_steps": 50,
        }
    )
    ready(train={"learning_rate": 0.2})
    result = train()
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads(Path("metrics/train.json").read_text())
    assert summary["best_step"] == summary["steps"] - 2 < 38
    assert summary["rows_seen"] == 4 * summary["steps"]
    # And the loss that was printed is the loss of the rows that were held back, computed in one go.
    tokens = Tokens(Path("data/processed/tokens.safetensors"))
    _, held = split(tokens, 0.25, 17)
    assert len(held) == 6
    model = load_adapter(load_model(Path("models/base"), torch.float32), Path("models/adapter"))
    rows = [Encoded(ids.tolist(), labels.tolist()) for ids, labels in map(tokens.row, held)]
    losses = torch.cat([answer_nll(model, row) for row in rows])
    assert summary["validation_loss"] == pytest.approx(float(losses.mean()), rel=1e-4)
    # Logging less often than there are steps: first and last are on the curve all the same.
    with Path("metrics/loss.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert curve[0]["step"] == "1"


def test_dtypes_after_deepspeed_initialize_are_bf16_base_and_fp32_adapter(ready):
    """DeepSpeed's own bf16 mode would cast the adapter; ours leaves it and its optimizer in float32."""
    ready(train={"dtype": "bfloat16", "max_steps": 2})
    program = (
        "from transformers import TrainerCallback\n"
        "import tuneline.train.run as training\n"
        "from tests.helpers.stages import PATHS, load, load_config\n"
        "class Look(TrainerCallback):\n"
        "    def on_step_end(self, args, state, control, **kwargs):\n"
        "        engine = kwargs['model']\n"
        "        inside = getattr(engine, 'module', engine)\n"
        "        seen = {(p.requires_grad, str(p.dtype)) for p in inside.parameters()}\n"
        "        optimizer = kwargs['optimizer']\n"
        "        groups = {str(p.dtype) for g in optimizer.param_groups for p in g['params']}\n"
        "        print('SEEN', sorted(seen), sorted(groups), flush=True)\n"
        "training.train(load_config(load), PATHS, None, [Look()])\n"
    )
    Path("scratch").mkdir()
    Path("metrics").mkdir()
    result = python(Path.cwd(), "-c", program, env=one_rank())
    assert result.returncode == 0, result.stderr[-3000:]
    assert "SEEN [(False, 'torch.bfloat16'), (True, 'torch.float32')] ['torch.float32']" in result.stdout


def test_a_loss_that_is_no_number_ends_the_run(ready):
    ready()
    weights = Path("models/base/model.safetensors")
    tensors = load_file(weights)
    tensors["model.norm.weight"].fill_(3e38)
    save_file(tensors, weights, metadata={"format": "pt"})
    result = train()
    assert result.returncode == 1
    assert "lower train.learning_rate" in result.stderr
    assert not Path("models/adapter").exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_model(make_base(tmp_path_factory.mktemp("llama"), "chatml", "llama"), torch.float32)


def test_all_linear_layers_but_the_head(tiny):
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert resolve_targets(tiny, ["all"]) == projections
    assert resolve_targets(tiny, ["q_proj"]) == {"q_proj"}
    with pytest.raises(ValueError, match=r"lora.target_modules holds \['lm_head'\], expected \[all\] or some of"):
        resolve_targets(tiny, ["q_proj", "lm_head"])


def test_a_fresh_adapter_changes_nothing_and_counts_by_hand(tiny):
    ids = torch.arange(5, 15)[None]
    before = tiny(input_ids=ids).logits
    tuned = methods.prepare(tiny, method(lora=LORA))
    assert torch.equal(tuned.eval()(input_ids=ids).logits, before)
    # r (in + out) for q, k, v, o, gate, up, down of two layers.
    shapes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert tuned.get_nb_trainable_parameters()[0] == 2 * sum(4 * (a + b) for a, b in shapes)
