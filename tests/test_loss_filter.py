"""The filtered gradient of the head's loss: near the exact one where it is filtered, the same bytes where it is not."""

from pathlib import Path

import pytest
import torch

import tuneline.models.chunked_loss
import tuneline.models.head_loss.gradient_filter
from tests.helpers.families import FAMILIES, raw_checkpoint
from tests.helpers.methods import method
from tuneline.models.chunked_loss import summed_loss
from tuneline.models.head_loss.gradient_filter import GradientFilter, sample
from tuneline.models.loading import load_model
from tuneline.train.run import prepare_model

WORDS, WIDTH = 6000, 48
BOUND = {torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Relative errors of a gradient: about twice what the dtype's rounding of probabilities may cost."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(tuneline.models.chunked_loss, "CHUNK", 32)


def case(dtype: torch.dtype, sharp: float = 2.2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(states, head, targets) of text: few words are likely, and all embeddings share a part, as those of real heads do."""
    generator = torch.Generator().manual_seed(3)
    head = torch.randn(WORDS, WIDTH, generator=generator) * 0.5 + torch.randn(WIDTH, generator=generator)
    targets = torch.randint(0, 200, (75,), generator=generator)
    states = head[targets] * sharp + torch.randn(75, WIDTH, generator=generator) * sharp / 4
    return states.to(dtype).requires_grad_(), head.to(dtype), targets


def found(states, head, targets, cap=None, gradient_filter=None) -> tuple[torch.Tensor, torch.Tensor]:
    loss = summed_loss(states, head, targets, cap, gradient_filter)
    return loss.detach(), torch.autograd.grad(loss * 3, states)[0].float()


def distance(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours - exact).norm() / exact.norm())


@pytest.mark.parametrize("cap", [None, 150.0])
@pytest.mark.parametrize("dtype", BOUND)
def test_the_loss_is_the_same_and_the_gradient_near(dtype, cap):
    given = case(dtype)
    loss, exact = found(*given, cap)
    chosen = GradientFilter(vocabulary=WORDS, every=1, largest_share=1.0)
    ours, gradient = found(*given, cap, chosen)
    assert torch.equal(ours, loss)
    assert 0 < distance(gradient, exact) < BOUND[dtype]
    figures = chosen.report()["loss_filter"]
    assert (figures["chunks"], figures["exact_chunks"]) == (3, 0)
    assert 0 < figures["kept_share_mean"] < 0.9
    assert 0 < figures["gradient_error_max"] < BOUND[dtype]
    plain = GradientFilter(vocabulary=WORDS, every=10**9, losses=1, largest_share=1.0)
    assert torch.equal(found(*given, cap, plain)[1], gradient), "measuring changes nothing"
    assert "gradient_error_max" not in plain.report()["loss_filter"]


def test_each_word_counts_as_often_as_it_should():
    """Over the places where a sample may begin, to what their number leaves open; those above the spacing always once."""
    generator, starts, spacing = torch.Generator().manual_seed(2), 400, 2.0**-6
    mass = torch.rand(500, generator=generator).pow(4) / 20
    counted, sizes = torch.zeros(len(mass), dtype=torch.float64), []
    for number in range(starts):
        words, scales = sample(mass, spacing, (number + 0.5) / starts)
        counted[words] += scales.double() / starts
        sizes.append(len(words))
        assert torch.equal(scales > 1, mass[words] < spacing)
    often = mass >= spacing
    assert torch.allclose(counted[often], torch.ones(1, dtype=torch.float64))
    chance = (mass / spacing).double()
    assert bool(((counted - 1).abs()[~often] <= 1.01 / starts / chance[~often]).all())
    assert max(sizes) - min(sizes) <= 1
    assert 0 < int(often.sum()) < min(sizes) < 250


def test_samples_err_in_no_direction(monkeypatch):
    """The mean of many gradients is nearer than each: without the weights of rare words it would be as far."""
    module = tuneline.models.head_loss.gradient_filter
    monkeypatch.setitem(module.SPACING, torch.bfloat16, 2.0**-4)
    given, cap = case(torch.bfloat16), 150.0
    exact = found(*given, cap)[1]

    def distances() -> tuple[float, float]:
        made = []
        for number in range(32):
            monkeypatch.setattr(module, "STARTS", 1000.0 + 7.3 * number)
            made.append(found(*given, cap, GradientFilter(vocabulary=0))[1])
        each = sum(distance(one, exact) for one in made) / len(made)
        return each, distance(torch.stack(made).mean(0), exact)

    each, mean = distances()
    assert mean < each / 2
    real = module.sample
    monkeypatch.setattr(module, "sample", lambda *given: (real(*given)[0], torch.ones(len(real(*given)[0]))))
    each, mean = distances()
    assert mean > each / 2


@pytest.mark.parametrize(
    ("dtype", "chosen"),
    [
        (torch.float32, GradientFilter(vocabulary=0)),
        (torch.bfloat16, GradientFilter(vocabulary=WORDS + 1)),
        (torch.bfloat16, GradientFilter(vocabulary=0, kinds=("cuda",))),
    ],
    ids=["float32", "small vocabulary", "another device"],
)
def test_it_is_exact_elsewhere(dtype, chosen):
    given = case(dtype)
    for ours, exact in zip(found(*given, None, chosen), found(*given), strict=True):
        assert torch.equal(ours, exact)
    assert chosen.report() == {}


def test_a_head_that_trains_gets_all_words():
    states, head, targets = case(torch.bfloat16)
    head.requires_grad_()
    pairs = [
        torch.autograd.grad(summed_loss(states, head, targets, None, one), (states, head))
        for one in (None, GradientFilter(vocabulary=0))
    ]
    assert all(torch.equal(ours, exact) for ours, exact in zip(*pairs, strict=True))


@pytest.mark.parametrize(("sharp", "cap"), [(0.0, None), (0.0, 5.0), (0.3, None)])
def test_where_all_words_are_likely_it_is_exact(sharp, cap):
    given = case(torch.bfloat16, sharp)
    chosen = GradientFilter(vocabulary=0)
    for ours, exact in zip(found(*given, cap, chosen), found(*given, cap), strict=True):
        assert torch.equal(ours, exact)
    assert chosen.report()["loss_filter"]["exact_chunks"] == 3


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_gradient_is_near(family, dtype, tmp_path: Path):
    """So few words that the filter must be told to: all but the unlikely ones are kept."""
    folder = raw_checkpoint(family, tmp_path / "base")
    ids = torch.randint(10, 300, (2, 40), generator=torch.Generator().manual_seed(1))

    def gradients(chosen: GradientFilter | None) -> tuple[float, torch.Tensor]:
        model = load_model(folder, dtype)
        with torch.no_grad():
            # Untrained, all words are about as likely.
            model.base_model.norm.weight.fill_(60)
        torch.manual_seed(1)
        lora = method(lora={"r": 4, "alpha": 16, "dropout": 0.0})
        tuned = prepare_model(model, lora, False, chosen).train()
        trained = {name: one for name, one in tuned.named_parameters() if one.requires_grad}
        with torch.autocast("cpu", dtype):
            loss = tuned(input_ids=ids, labels=ids)["loss"]
        # Those of A are 0 while B is.
        wanted = [one for name, one in trained.items() if "lora_B" in name]
        return float(loss.detach()), torch.cat([one.flatten() for one in torch.autograd.grad(loss, wanted)])

    loss, exact = gradients(None)
    chosen = GradientFilter(vocabulary=0, largest_share=1.0)
    ours, filtered = gradients(chosen)
    figures = chosen.report()["loss_filter"]
    assert figures["exact_chunks"] == 0
    assert figures["kept_share_mean"] < 1
    assert ours == loss
    assert figures["gradient_error_max"] < BOUND[dtype]
    # The layers below round on their way what the head gives them.
    assert distance(filtered, exact) < 3 * BOUND[dtype]
