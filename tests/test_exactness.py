"""The loss and gradients that training uses are the plain ones, for every family: in one line, padded, in both dtypes."""

import itertools

import pytest
import torch
import transformers

import tuneline.models.packed_attention
import tuneline.train.fused.device
from tests.helpers.families import FAMILIES, HEADS, SHAPE
from tests.helpers.methods import method
from tuneline.models.packing import packing_is_exact
from tuneline.train.collate import collator, padded, supports_packing
from tuneline.train.run import prepare_model

LORA = method(lora={"r": 4, "alpha": 8, "dropout": 0.0})
LENGTHS = (40, 7, 23)
"""The first is longer than Gemma's window of 16."""


def made(family: str, dtype: torch.dtype):
    _, config_class, special = FAMILIES[family]
    config = getattr(transformers, config_class)(vocab_size=200, **SHAPE, **HEADS, pad_token_id=0, **special)
    torch.manual_seed(5)
    return transformers.AutoModelForCausalLM.from_config(config).to(dtype).requires_grad_(False)


def rows() -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    torch.manual_seed(6)
    result = []
    for length in LENGTHS:
        ids = torch.randint(1, 200, (length,))
        labels = ids.clone()
        labels[: length // 3] = -100
        result.append((ids, labels, 1))
    return result


def wake(model) -> list[torch.nn.Parameter]:
    """What trains; LoRA's B begins as zero, and would hide A's gradient."""
    torch.manual_seed(7)
    trained = [one for one in model.parameters() if one.requires_grad]
    for one in trained:
        torch.nn.init.normal_(one, std=0.1)
    return trained


def plain(family: str, dtype: torch.dtype, weights: torch.dtype | None = None) -> tuple[float, torch.Tensor]:
    """Every row alone, whole logits, torch's cross-entropy in float32: summed loss, and all gradients [n].

    `weights`: what the weights are rounded to before.
    """
    from peft import get_peft_model

    from tuneline.train.lora import lora_config

    model = made(family, weights or dtype).to(dtype)
    tuned = get_peft_model(model, lora_config(model, LORA.lora), autocast_adapter_dtype=True)
    trained = wake(tuned)
    total = torch.zeros(())
    for ids, labels, _ in rows():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            logits = tuned(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits.float(), labels[1:], reduction="sum")
    return float(total.detach()), flat(torch.autograd.grad(total, trained))


def flat(gradients) -> torch.Tensor:
    return torch.cat([one.flatten() for one in gradients])


def distance(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("short", [512, 0], ids=["matmul", "kernel"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_one_line_give_the_loss_and_gradients_of_rows_alone(
    family, dtype, tolerance, checkpointing, short, monkeypatch
):
    """In bfloat16, as near to float32's as the plain way in bfloat16 is. `short` chooses the attention, as on a GPU or not."""
    monkeypatch.setattr(tuneline.models.packed_attention, "SHORT", short)
    wanted, gradients = plain(family, torch.float32, weights=dtype)
    model = made(family, dtype)
    collate = collator(model, packed=True)
    tuned = prepare_model(model, LORA, checkpointing).train()
    trained = wake(tuned)
    batch = collate(rows())
    assert batch["input_ids"].shape == (1, sum(LENGTHS))
    batch.pop("step_tokens")
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        loss = tuned(**batch)["loss"]
    assert float(loss.detach()) == pytest.approx(wanted, rel=tolerance)
    rounding = 0.0 if dtype == torch.float32 else distance(plain(family, dtype)[1], gradients)
    assert distance(flat(torch.autograd.grad(loss, trained)), gradients) <= 1.2 * rounding + tolerance


def varlen_attn(q, k, v, offsets, offsets_k, longest, longest_k, *, scale, window_size, enable_gqa):
    """What torch.nn.attention.varlen says of itself: rows [N, heads, d], a window of so many positions before each."""
    assert offsets is offsets_k and offsets.dtype == torch.int32
    assert longest == longest_k == int(offsets.diff().max()) and offsets[-1] == len(q) == len(k) == len(v)
    assert enable_gqa == (q.shape[1] != k.shape[1]) and window_size[1] == 0
    k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
    rows = []
    for start, end in itertools.pairwise(offsets.tolist()):
        places = torch.arange(end - start)
        behind = places[:, None] - places
        seen = (behind >= 0) & ((behind <= window_size[0]) | (window_size[0] < 0))
        scores = torch.einsum("ihd,jhd->hij", q[start:end], k[start:end]) * (scale or q.shape[-1] ** -0.5)
        rows.append(torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v[start:end]))
    return torch.cat(rows)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_ways_of_a_gpu_give_the_same(family, dtype, tolerance, checkpointing, monkeypatch):
    """Rows in one call, norms, positions, gates and layers with the same input as on a GPU, computed by a CPU."""
    calls = []
    monkeypatch.setattr(tuneline.train.fused.device, "on_gpu", lambda x: True)
    monkeypatch.setattr(tuneline.models.packed_attention, "flash_fits", lambda *_: True)
    monkeypatch.setattr(
        tuneline.models.packed_attention,
        "varlen_attn",
        lambda *given, **named: calls.append(1) or varlen_attn(*given, **named),
    )
    wanted, gradients = plain(family, torch.float32, weights=dtype)
    model = made(family, dtype)
    tuned = prepare_model(model, LORA, checkpointing).train()
    trained = wake(tuned)
    batch = collator(model, packed=True)(rows())
    batch.pop("step_tokens")
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        loss = tuned(**batch)["loss"]
    assert len(calls) == SHAPE["num_hidden_layers"]
    assert float(loss.detach()) == pytest.approx(wanted, rel=tolerance)
    rounding = 0.0 if dtype == torch.float32 else distance(plain(family, dtype)[1], gradients)
    assert distance(flat(torch.autograd.grad(loss, trained)), gradients) <= 1.2 * rounding + tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_give_the_same(family):
    wanted, gradients = plain(family, torch.float32)
    tuned = prepare_model(made(family, torch.float32), LORA, checkpointing=False).train()
    trained = wake(tuned)
    batch = padded(rows(), pad=0)
    loss = tuned(input_ids=batch["input_ids"], labels=batch["labels"])["loss"]
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    assert distance(flat(torch.autograd.grad(loss, trained)), gradients) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_lie_in_line_and_stay_apart(family):
    model = made(family, torch.bfloat16)
    assert supports_packing(model.config, LORA, None)
    assert packing_is_exact(model)
    assert model.config._attn_implementation != "tuneline_rows"


def test_a_model_with_convolutions_is_padded_and_would_be_found_out():
    """LFM2 goes through the attention interface, and its short convolutions run over the ends of rows."""
    config = transformers.Lfm2Config(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"],
    )  # fmt: skip
    assert not supports_packing(config, LORA, None)
    assert not packing_is_exact(transformers.AutoModelForCausalLM.from_config(config))


def test_what_else_is_padded():
    config = made("Qwen3", torch.float32).config
    assert supports_packing(config, LORA, None)
    assert not supports_packing(config, LORA, 5.0)
    assert not supports_packing(config, method("prefix"), None)
    assert not supports_packing(transformers.Gemma2Config(), LORA, None)


def test_a_row_does_not_see_its_neighbours():
    """Another row beside it, and not one bit of its hidden states changes; of rows in a padded batch they would."""
    model = made("Gemma 3", torch.float32)
    collate = collator(model, packed=True)
    states = []
    for first in (3, 9):
        ids = torch.full((12,), first)
        other = torch.arange(1, 30)
        batch = collate([(ids, ids, 1), (other, other, 1)])
        where = {"position_ids": batch["position_ids"], "lengths": batch["lengths"]}
        states.append(model.base_model(input_ids=batch["input_ids"], use_cache=False, **where).last_hidden_state[0])
    assert torch.equal(states[0][12:], states[1][12:])
    assert not torch.equal(states[0][:12], states[1][:12])


def test_the_end_of_a_row_does_not_learn_the_beginning_of_the_next():
    """Even where a row's first token has a label."""
    collate = collator(made("Llama 3", torch.float32), packed=True)
    ids = torch.arange(1, 6)
    labels = collate([(ids, ids, 1)] * 3)["labels"][0]
    assert labels.tolist() == list(itertools.chain(*[[-100, 2, 3, 4, 5]] * 3))


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("lengths", [(46,) * 3, (30, 44, 52, 41), (1, 1), (9, 20, 200), (33,)])
def test_rows_attend_on_a_cpu_as_in_torchs_kernel(lengths, heads, monkeypatch):
    generator, of_query = torch.Generator().manual_seed(2), (1, heads[0], sum(lengths), 16)
    of_key, of_value = ((1, heads[1], sum(lengths), width) for width in (16, 12))
    given = [torch.randn(shape, generator=generator).requires_grad_() for shape in (of_query, of_key, of_value)]
    weights = torch.randn(1, sum(lengths), heads[0], 12, generator=generator)
    packed = tuneline.models.packed_attention

    def attended() -> tuple[torch.Tensor, ...]:
        out = packed.packed_attention(torch.nn.Identity(), *given, None, lengths=lengths)[0]
        return out, *torch.autograd.grad((out * weights).sum(), given)

    ours = attended()
    monkeypatch.setattr(packed, "SHORT", 0)
    for one, other in zip(ours, attended(), strict=True):
        torch.testing.assert_close(one, other)


def test_queries_of_norms_that_train_attend_in_autocasts_dtype():
    torch.manual_seed(3)
    q, k = (torch.randn(1, heads, 12, 8, requires_grad=True) for heads in (4, 2))
    v = torch.randn(1, 2, 12, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        packed = tuneline.models.packed_attention
        out = packed.packed_attention(torch.nn.Identity(), q, k, v, None, lengths=(5, 7))[0]
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    assert [one.dtype for one in grads] == [torch.float32, torch.float32, torch.bfloat16]
    assert all(one.isfinite().all() and one.any() for one in grads)
