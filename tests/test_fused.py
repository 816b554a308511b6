"""Fused passes are what they stand for: LoRA with dropout is PEFT's, casts follow what trains, formulas are tried first."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.gemma4.modeling_gemma4 import Gemma4RMSNorm
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.phi3.modeling_phi3 import Phi3MLP

import tuneline.models.packed_attention as packed
from tests.helpers.families import FAMILIES, HEADS, SHAPE
from tests.helpers.methods import method
from tuneline.train import methods
from tuneline.train.fused import device, norms
from tuneline.train.fused.gates import Gated, is_gated
from tuneline.train.fused.norms import is_rms_norm, patch_norms
from tuneline.train.fused.rotary import TurnHalves, patch_rotary, turns_halves, turns_neighbours
from tuneline.train.fused.shared_input import Member
from tuneline.train.fused_lora import patch_lora_layers
from tuneline.train.gradient_checkpointing import enable_checkpointing

IDS = torch.arange(3, 33)[None]


def tuned(dropout: float, dtype: torch.dtype = torch.float32, checkpointing: bool = False):
    """(a model with LoRA, what trains of it, away from zero)."""
    torch.manual_seed(5)
    config = transformers.Qwen2Config(vocab_size=64, **SHAPE, **HEADS, **FAMILIES["Qwen2"][2])
    base = transformers.AutoModelForCausalLM.from_config(config).to(dtype).requires_grad_(False)
    model = methods.prepare(base, method(lora={"r": 4, "alpha": 12, "dropout": dropout})).train()
    if checkpointing:
        enable_checkpointing(base)
    trained = [one for one in model.parameters() if one.requires_grad]
    with torch.no_grad():
        for one in trained:
            one.normal_(std=0.1)
    return model, trained


def results(model, trained, seed: int = 3) -> list[torch.Tensor]:
    """Logits, gradients, and torch's random numbers afterwards."""
    torch.manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=model.dtype != torch.float32):
        logits = model(input_ids=IDS, use_cache=False).logits
    gradients = torch.autograd.grad(logits.float().square().sum(), trained)
    return [logits.detach(), *gradients, torch.get_rng_state()]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_lora_with_dropout_is_pefts_by_the_same_random_numbers(dropout, checkpointing):
    model, trained = tuned(dropout, checkpointing=checkpointing)
    theirs = results(model, trained)
    patch_lora_layers(model)
    ours = results(model, trained)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert torch.equal(ours[-1], theirs[-1])
    assert torch.equal(results(model, trained, seed=4)[0], ours[0]) == (not dropout)
    model.eval()
    assert torch.equal(results(model, trained, seed=3)[0], results(model, trained, seed=4)[0])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_is_cast_once_follows_what_trains(dropout):
    """Also where it is changed as DeepSpeed does, without a trace."""
    model, trained = tuned(dropout, torch.bfloat16)
    patch_lora_layers(model)
    before = results(model, trained)
    assert all(torch.equal(one, other) for one, other in zip(results(model, trained), before, strict=True))
    for one in trained:
        one.data.mul_(1.5)
    changed = results(model, trained)
    fresh, others = tuned(dropout, torch.bfloat16)
    patch_lora_layers(fresh)
    for one in others:
        one.data.mul_(1.5)
    assert not torch.equal(changed[0], before[0])
    assert all(torch.equal(one, other) for one, other in zip(changed, results(fresh, others), strict=True))


def test_a_part_of_the_model_alone_sees_what_an_optimizer_did():
    model, trained = tuned(0.0, torch.bfloat16)
    patch_lora_layers(model)
    results(model, trained)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    x = torch.ones(1, 32, dtype=torch.bfloat16)
    before = layer(x)
    with torch.no_grad():
        for one in trained:
            one.mul_(2)
    assert not torch.equal(layer(x), before)


def test_layers_with_the_same_input_are_joined_on_a_gpu_and_share_a_mask(monkeypatch):
    model, trained = tuned(0.0)
    theirs = results(model, trained)
    monkeypatch.setattr(device, "on_gpu", lambda x: True)
    patch_lora_layers(model)
    joined = [name for name, one in model.named_modules() if isinstance(getattr(one, "forward", None), Member)]
    assert sorted({name.rpartition(".")[2] for name in joined}) == [
        "gate_proj",
        "k_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    for one, other in zip(results(model, trained), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

    model, trained = tuned(0.5)
    patch_lora_layers(model)
    attention = model.get_base_model().model.layers[0].self_attn
    x = torch.randn(6, 32, requires_grad=True)
    torch.manual_seed(1)
    made = [getattr(attention, name)(x) for name in ("q_proj", "k_proj", "v_proj")]
    torch.manual_seed(1)
    left, _ = torch.native_dropout(x, 0.5, True)
    layers = [attention.q_proj, attention.k_proj, attention.v_proj]
    wanted = [
        layer.base_layer(x) + layer.lora_B["default"](layer.lora_A["default"](left)) * layer.scaling["default"]
        for layer in layers
    ]
    weights = [x, *(weight for layer in layers for weight in layer.parameters() if weight.requires_grad)]
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other)
    ours, theirs = (torch.autograd.grad(sum(one.square().sum() for one in of), weights) for of in (made, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    # Another tensor, although equal: each layer computes its own.
    attention.q_proj(x)
    assert attention.k_proj(x.clone()).shape == made[1].shape


def test_formulas_are_tried_before_they_are_replaced():
    assert is_rms_norm(modeling_glm.GlmRMSNorm) and is_rms_norm(LlamaRMSNorm)
    assert not is_rms_norm(Gemma3RMSNorm) and not is_rms_norm(torch.nn.LayerNorm)
    assert is_rms_norm(Gemma3RMSNorm, 1.0) and not is_rms_norm(LlamaRMSNorm, 1.0)
    assert turns_halves(modeling_llama.apply_rotary_pos_emb) and not turns_halves(modeling_glm.apply_rotary_pos_emb)
    silu = type(transformers.activations.ACT2FN["silu"])
    assert is_gated(modeling_glm.GlmMLP, silu) and is_gated(Phi3MLP, silu)
    assert not is_gated(modeling_glm.GlmMLP, type(transformers.activations.ACT2FN["gelu"]))
    assert not is_gated(modeling_llama.LlamaMLP, silu)
    assert not turns_neighbours(modeling_llama.apply_rotary_pos_emb)


def test_positions_of_glm_by_complex_numbers(monkeypatch):
    own = modeling_glm.apply_rotary_pos_emb
    own = getattr(own, "own", own)
    monkeypatch.setattr(modeling_glm, "apply_rotary_pos_emb", own)
    patch_rotary(torch.nn.ModuleList([modeling_glm.GlmRMSNorm(4)]))
    ours = modeling_glm.apply_rotary_pos_emb
    assert ours is not own
    torch.manual_seed(2)
    # As in a model: [B, T, heads, d] turned to [B, heads, T, d]; half of d is turned.
    q, k = (torch.randn(2, 5, heads, 16, requires_grad=True) for heads in (4, 2))
    angles = torch.rand(2, 5, 4).repeat(1, 1, 2) * 6
    given = (q.transpose(1, 2), k.transpose(1, 2), angles.cos(), angles.sin())
    made = []
    for on_gpu in (False, True):
        monkeypatch.setattr(device, "on_gpu", lambda x, on_gpu=on_gpu: on_gpu)
        turned = ours(*given)
        loss = sum((one * torch.arange(one.numel()).view(one.shape)).sum() for one in turned)
        made.append([*turned, *torch.autograd.grad(loss, (q, k))])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_of_gated_halves():
    both = torch.randn(3, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Gated.apply, both)


def attended(lengths, window, dtype=torch.bfloat16, groups=2):
    """Calls of kernels for rows on a GPU that has no data: names, and what they are given."""
    calls: list[tuple] = []
    with FakeTensorMode() as mode, pytest.MonkeyPatch.context() as patch:
        fits = dtype != torch.float32
        patch.setattr(packed, "flash_fits", lambda *_: fits)

        def at_once(q, k, v, offsets, *rest, **named):
            calls.append(
                ("varlen", tuple(k.shape), tuple(offsets.shape), *rest[1:], named["window_size"], named["enable_gqa"])
            )
            return torch.empty_like(q)

        def alone(q, k, v, mask, dropout, causal, *, scale, enable_gqa):
            calls.append(("sdpa", tuple(k.shape), mask is not None, causal, enable_gqa))
            return torch.empty_like(q.transpose(1, 2)).transpose(1, 2)

        patch.setattr(packed, "varlen_attn", at_once)
        patch.setattr(packed, "scaled_dot_product_attention", alone)
        where = torch.device("cuda")
        q, k, v = (
            torch.empty(1, sum(lengths), heads, 16, device=where, dtype=dtype).transpose(1, 2)
            for heads in (4, groups, groups)
        )
        result, _ = packed.packed_attention(
            torch.nn.Identity(), q, k, v, None, lengths=lengths, scaling=0.25, sliding_window=window
        )
        assert result.shape == (1, sum(lengths), 4, 16) and mode is not None
    return calls


def test_which_kernel_a_gpu_is_asked_for():
    assert attended((40, 7), None) == [("varlen", (47, 2, 16), (3,), 40, 40, (-1, 0), True)]
    assert attended((40, 7), 16, groups=4) == [("varlen", (47, 4, 16), (3,), 40, 40, (15, 0), False)]
    assert attended((40,), 16) == [("varlen", (40, 2, 16), (2,), 40, 40, (15, 0), True)]
    # One row needs no offsets.
    assert attended((40,), None) == [("sdpa", (1, 2, 40, 16), False, True, True)]
    assert attended((40,), 64) == [("sdpa", (1, 2, 40, 16), False, True, True)]
    # Without FlashAttention keys and values are repeated, or torch would keep all scores.
    assert attended((40,), 16, torch.float32) == [("sdpa", (1, 4, 40, 16), True, False, False)]
    assert attended((40,), None, torch.float32) == [("sdpa", (1, 4, 40, 16), False, True, False)]


def test_flash_is_no_matter_of_a_cpu():
    q = torch.empty(1, 4, 8, 16, dtype=torch.bfloat16)
    assert not packed.flash_fits(q, q, q)


def test_a_norm_without_a_weight_is_left_as_it_is():
    """Gemma 4's of values; its other norms have one."""
    norm, x = Gemma4RMSNorm(8, with_scale=False), torch.randn(2, 8)
    expected = norm(x)
    patch_norms(torch.nn.Sequential(norm))
    torch.testing.assert_close(norm(x), expected)


def test_what_a_lora_layer_gives_can_be_changed_in_place():
    """As Gemma 3n does."""
    layer = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=False)).requires_grad_(False)
    tuned = get_peft_model(layer, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    patch_lora_layers(tuned)
    made = tuned(torch.randn(1, 3, 6))
    made.mul_(2.0).sum().backward()
    assert all(one.grad is not None for one in tuned.parameters() if one.requires_grad)


LAYOUTS = {
    "contiguous": lambda: torch.randn(2, 3, 5, 8),
    "swapped": lambda: torch.randn(2, 5, 3, 8).transpose(1, 2),
    "part of a product": lambda: torch.randn(1, 5, 40)[..., :24].view(1, 5, 3, 8).transpose(1, 2),
    "swapped and narrowed": lambda: torch.randn(2, 5, 3, 12).transpose(1, 2)[..., :8],
    "transposed": lambda: torch.randn(5, 2, 8).transpose(0, 1),
}
"""How queries, keys and hidden states may lie in memory."""


@pytest.mark.parametrize("block", [1 << 18, 24])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [Gemma3RMSNorm, LlamaRMSNorm])
def test_a_norm_by_rows_is_the_models_own(kind, layout, block, monkeypatch):
    """In float32 within its rounding; bfloat16 is float32's, rounded once. `block` cuts the rows."""
    monkeypatch.setattr(norms, "BLOCK", block)
    torch.manual_seed(4)
    norm = kind(8).requires_grad_(False)
    norm.weight.normal_()
    x = LAYOUTS[layout]().requires_grad_()
    out = torch.randn(x.shape)
    expected = [norm(x), *torch.autograd.grad(norm(x), x, out)]
    holder = torch.nn.Sequential(norm)
    patch_norms(holder)
    made = norm(x)
    assert made.grad_fn is not None and made.grad_fn.name() == "RowNormBackward"
    assert made.stride() == x.stride() or (layout not in ("contiguous", "swapped") and made.is_contiguous())
    for one, other in zip((made, *torch.autograd.grad(made, x, out)), expected, strict=True):
        torch.testing.assert_close(one, other)
    holder.bfloat16()
    half = x.detach().bfloat16().requires_grad_()
    made = norm(half)
    scale = norm.weight.float() + (kind is Gemma3RMSNorm)
    exact = torch.nn.functional.rms_norm(half.float(), (8,), scale, norms._eps(norm))
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), exact, rtol=2**-8, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(half), made)


def test_a_norm_that_trains_keeps_its_own_way():
    norm = LlamaRMSNorm(8)
    patch_norms(torch.nn.Sequential(norm))
    norm(torch.randn(2, 8)).sum().backward()
    assert norm.weight.grad is not None


def test_halves_are_turned_alike_in_queries_and_keys():
    whole = modeling_llama.apply_rotary_pos_emb
    assert not turns_halves(lambda q, k, cos, sin: (whole(q, k, cos, sin)[0], k))


def test_a_norm_in_float16_has_its_kernel_on_a_gpu_alone(monkeypatch):
    norm = LlamaRMSNorm(8).half().requires_grad_(False)
    patch_norms(torch.nn.Sequential(norm))
    x = torch.randn(2, 8).half().requires_grad_()
    kernel = lambda x, *_: x + 1  # noqa: E731
    monkeypatch.setattr(norms, "rms_norm", kernel)
    assert not torch.equal(norm(x), kernel(x))
    monkeypatch.setattr(device, "on_gpu", lambda x: True)
    assert torch.equal(norm(x), kernel(x))


def test_gradient_of_turned_halves():
    x = torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(2, 1, 1, 3, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda one: TurnHalves.apply(one, angles[0], angles[1]), x)
