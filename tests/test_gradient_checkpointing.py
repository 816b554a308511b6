"""Gradient checkpointing: the same loss and the same gradients as without it, with every method and a prefix too."""

import pytest
import torch
import transformers

from tests.helpers.families import FAMILIES, HEADS, SHAPE
from tests.helpers.methods import method
from tuneline.train.collate import padded
from tuneline.train.run import prepare_model

KINDS = {
    "prefix": {"num_virtual_tokens": 6, "projection": False},
    "prefix through a network": {"num_virtual_tokens": 6, "encoder_hidden_size": 16},
    "a prefix longer than the sliding window": {"num_virtual_tokens": 24, "projection": False},
    "p_tuning": {"num_virtual_tokens": 6, "encoder_hidden_size": 16},
    "prompt": {"num_virtual_tokens": 6},
    "lora": {},
    "freeze": {},
}


def prepared(family: str, kind: str, checkpointing: bool):
    """A random model of the family, prepared for training: the same for the same arguments."""
    _, config_class, special = FAMILIES[family]
    config = getattr(transformers, config_class)(
        vocab_size=90, pad_token_id=0, eos_token_id=1, **SHAPE, **HEADS, **special
    )
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False)
    name = kind if kind in ("p_tuning", "prompt", "lora", "freeze") else "prefix"
    return prepare_model(model, method(name, ptuning=KINDS[kind], freeze={"layers": 1}), checkpointing).train()


def step(model) -> tuple[float, dict[str, torch.Tensor], int]:
    """The loss of two rows of unlike length, the gradients, and how often an attention ran."""
    runs: list[int] = []
    for name, module in model.named_modules():
        if name.endswith(".self_attn"):
            module.register_forward_pre_hook(lambda *_: runs.append(1))
    torch.manual_seed(4)
    rows = [(ids := torch.randint(2, 90, (length,)), ids, 1) for length in (30, 21)]
    batch = padded(rows, 0)
    batch.pop("step_tokens")
    loss = model(**batch)["loss"]
    loss.backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
    return loss.item(), gradients, len(runs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["Llama 3", "Gemma 3", "GLM-4", "Qwen3"])
def test_gradients_are_those_without_checkpointing(family, kind):
    loss, gradients, runs = step(prepared(family, kind, checkpointing=False))
    again, recomputed, more = step(prepared(family, kind, checkpointing=True))
    assert again == loss
    assert recomputed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        # LoRA begins with B = 0, so that nothing flows into A.
        assert gradient.any() or "lora_A" in name, name
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7)
    assert more == 2 * runs


def test_two_steps_in_a_row_read_their_own_prefix():
    model = prepared("GLM-4", "prefix", checkpointing=True)
    first, gradients, _ = step(model)
    gradients = {name: one.clone() for name, one in gradients.items()}
    model.zero_grad()
    second, again, _ = step(model)
    assert second == first
    for name, gradient in gradients.items():
        assert torch.equal(gradient, again[name])
