"""The chunked loss equals torch's own, value and gradient, whatever the chunk."""

import pytest
import torch

import tuneline.models.chunked_loss
from tuneline.models.chunked_loss import summed_loss, supervised_positions, token_nll


@pytest.mark.parametrize("positions", [1, 7, 50])
@pytest.mark.parametrize("chunk", [1, 16, 1000])
def test_value_and_gradient_equal_the_plain_loss(monkeypatch, positions, chunk):
    monkeypatch.setattr(tuneline.models.chunked_loss, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(positions)
    head = torch.randn(300, 24, generator=generator)
    states = torch.randn(positions, 24, generator=generator).requires_grad_()
    targets = torch.randint(0, 300, (positions,), generator=generator)
    loss = summed_loss(states, head, targets)
    loss.backward()
    ours, states.grad = states.grad, None
    plain = torch.nn.functional.cross_entropy(states @ head.T, targets, reduction="sum")
    plain.backward()
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, states.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(token_nll(states.detach(), head, targets).sum(), plain.detach(), rtol=1e-5, atol=1e-5)


def test_no_supervised_position_is_a_loss_of_zero():
    states, head = torch.empty(0, 4, requires_grad=True), torch.eye(4)
    loss = summed_loss(states, head, torch.empty(0, dtype=torch.long))
    loss.backward()
    assert (loss.item(), tuple(states.grad.shape)) == (0.0, (0, 4))


def test_huge_logits_do_not_overflow():
    head, states = torch.eye(4) * 1e4, torch.eye(4)[:2].clone().requires_grad_()
    loss = summed_loss(states, head, torch.tensor([0, 3]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(states.grad).all()
    assert loss.item() == pytest.approx(1e4)


def test_bfloat16_states_keep_their_dtype():
    head = torch.randn(100, 16).bfloat16()
    states = torch.randn(9, 16).bfloat16().requires_grad_()
    loss = summed_loss(states, head, torch.arange(9))
    loss.backward()
    assert (loss.dtype, states.grad.dtype) == (torch.float32, torch.bfloat16)


def test_positions_are_those_before_a_learnt_token():
    hidden = torch.arange(8.0).reshape(2, 4, 1)
    labels = torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]])
    states, targets = supervised_positions(hidden, labels)
    assert states[:, 0].tolist() == [1, 2, 4]
    assert targets.tolist() == [5, 6, 7]


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("rows", [1, 7, 900])
def test_a_trainable_head_gets_the_plain_losss_gradient(rows, cap):
    torch.manual_seed(rows)
    states = torch.randn(rows, 12, dtype=torch.float32, requires_grad=True)
    head = (torch.randn(50, 12) / 3).requires_grad_()
    targets = torch.randint(0, 50, (rows,))
    logits = states @ head.T
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") * 0.5
    torch.testing.assert_close(token_nll(states.detach(), head.detach(), targets, cap).sum() * 0.5, plain.detach())
    wanted = torch.autograd.grad(plain, (states, head))
    found = torch.autograd.grad(summed_loss(states, head, targets, cap) * 0.5, (states, head))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("even", [True, False])
def test_float16_holds_the_loss_of_a_large_vocabulary_and_of_large_logits(even):
    """Of 150,000 words as likely as one another, exponentials times weights have sums beyond float16's 65,504."""
    words, width = 150_000, 8
    torch.manual_seed(3)
    head = (torch.rand(words, width) * 0.1 + 0.85).half() if even else (torch.randn(words, width) * 20).half()
    states = (torch.full((5, width), 0.01) if even else torch.randn(5, width) * 100).half().requires_grad_()
    targets = torch.randint(0, words, (5,))
    loss = summed_loss(states, head, targets)
    (loss * 100).backward()
    logits = (states.detach().float() @ head.float().T).half().float().requires_grad_()
    assert even or logits.abs().max() > 10_000
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (plain * 100).backward()
    torch.testing.assert_close(loss, plain, rtol=1e-3, atol=1e-3)
    wanted = logits.grad @ head.float()
    # float16 keeps 11 bits of what is multiplied, weights in the main.
    torch.testing.assert_close(states.grad.float(), wanted, rtol=5e-3, atol=0.1 * float(head.abs().max()))


def test_gradients_below_float16s_smallest_number_wait_for_the_scale():
    head = (torch.eye(2) * 0.02).half()
    states = torch.tensor([[700.0, 0.0]]).half().requires_grad_()
    (summed_loss(states, head, torch.tensor([0])) * 2.0**16).backward()
    exact = torch.tensor([[700.0, 0.0]], requires_grad=True)
    plain = torch.nn.functional.cross_entropy(exact @ head.float().T, torch.tensor([0]))
    (found,) = torch.autograd.grad(plain, exact)
    assert 0 < found[0, 1] < 2.0**-25
    torch.testing.assert_close(states.grad[0, 1].float(), found[0, 1] * 2.0**16, rtol=0.02, atol=0)
