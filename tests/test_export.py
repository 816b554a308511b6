"""The merged model is the model that was trained, or the stage fails."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import stages.export
import tuneline.export.folder
from tests.helpers.methods import method
from tests.helpers.stages import run_main
from tests.helpers.workspace import make_trained
from tuneline.export.equivalence import sample
from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.models.loading import load_adapter, load_model, load_tokenizer
from tuneline.runtime.hashing import folder_sha256
from tuneline.train import methods

LORA = method(lora={"r": 4, "alpha": 8, "dropout": 0.0})


@pytest.fixture
def trained(workspace, canonical_base):
    """A workspace as evaluate leaves it, its adapter random and strong."""
    make_trained(Path(), canonical_base)
    return workspace


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_merged_folder_is_whole_and_equal(trained, dtype):
    trained(export={"dtype": dtype})
    run_main(stages.export)
    report = json.loads(Path("metrics/export.json").read_text())
    assert report["delta_nll"] < 0.01
    assert report["max_logit_difference"] < (1e-5 if dtype == "float32" else 0.5)
    assert report["greedy_agreement"] > 0.9
    names = {path.name for path in Path("models/merged").iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert names >= {"generation_config.json", "lineage.json"}
    adapter = load_adapter(load_model(Path("models/base"), torch.float32), Path("models/adapter"))
    merged = load_model(Path("models/merged"), torch.float32)
    ids = torch.tensor([load_tokenizer(Path("models/merged")).encode("感冒怎么办")])
    base = load_model(Path("models/base"), torch.float32)
    assert not torch.allclose(base(input_ids=ids).logits, merged(input_ids=ids).logits, atol=0.05)
    tolerance = 1e-5 if dtype == "float32" else 0.3
    torch.testing.assert_close(adapter(input_ids=ids).logits, merged(input_ids=ids).logits, atol=tolerance, rtol=0)
    assert not json.loads(Path("models/merged/config.json").read_text()).get("auto_map")
    first = folder_sha256(Path("models/merged"))
    run_main(stages.export)
    assert folder_sha256(Path("models/merged")) == first


def test_a_merge_that_is_not_the_adapter_fails_and_leaves_nothing(trained, monkeypatch):
    merge = tuneline.export.folder.merge_into

    def base_only(folder, *arguments):
        merge(folder, *arguments)
        shutil.copy("models/base/model.safetensors", folder / "model.safetensors")

    monkeypatch.setattr(tuneline.export.folder, "merge_into", base_only)
    trained(export={"max_delta_nll": 1e-4})
    with pytest.raises(ValueError, match=r"not base plus adapter: 14 tensors are off, first model.layers.0"):
        run_main(stages.export)
    assert not Path("models/merged").exists()
    assert [path.name for path in Path("models").iterdir() if "partial" in path.name] == []


def test_an_adapter_that_changes_nothing_is_refused(trained):
    model = methods.prepare(load_model(Path("models/base"), torch.float32), LORA)
    with pytest.raises(ValueError, match="lora_B.weight and all like it are zero"):
        methods.save(model, LORA, Path("models/zero"))
    model.save_pretrained("models/zero")
    with pytest.raises(ValueError, match="changes nothing in"):
        load_adapter(load_model(Path("models/base"), torch.float32), Path("models/zero"))


def test_a_model_without_weights_is_named(trained):
    Path("models/base/model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"models/base holds no weights"):
        run_main(stages.export)


def test_as_many_tokens_are_compared_as_it_takes_from_everywhere():
    rows = [Encoded([5] * 80, [IGNORE_INDEX] * 60 + [5] * 20) for _ in range(50)]
    for number, row in enumerate(rows):
        row.input_ids[0] = number
    chosen = [row.input_ids[0] for row in sample(rows)]
    assert len(chosen) == 13, "260 tokens"
    assert chosen == sorted(chosen)
    assert all(after - before < 9 for before, after in pairwise([0, *chosen, 50]))
    assert sample(rows[:5]) == rows[:5]
    long = [Encoded([5] * 800, [5] * 800) for _ in range(9)]
    assert len(sample(long)) == 4
