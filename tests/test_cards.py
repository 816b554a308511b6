"""Cards by compute capability: which kernels take grouped heads, and the table of the docs."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers.integrations import sdpa_attention

from tests.helpers.paths import ROOT
from tuneline.cli import card_table
from tuneline.models.gpu import attention
from tuneline.models.gpu.attention import repeat_where_no_kernel_takes_groups, takes_groups

HALF, WHOLE = torch.float16, torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype", "masked", "grouped"),
    [
        ((7, 0), HALF, False, False),
        ((7, 5), HALF, False, False),
        ((7, 5), WHOLE, False, False),
        ((8, 0), HALF, False, True),
        ((8, 9), torch.bfloat16, False, True),
        ((9, 0), torch.bfloat16, True, False),
        ((9, 0), WHOLE, False, False),
    ],
)
def test_grouped_heads_are_left_to_flash_attention_alone(monkeypatch, capability, dtype, masked, grouped):
    """As torch 2.13 chooses on each of them; elsewhere grouped heads are whole products."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    query = SimpleNamespace(is_cuda=True, dtype=dtype, device=torch.device("cuda"))
    assert takes_groups(query, torch.ones(1) if masked else None) == grouped
    assert takes_groups(torch.ones(1), None), "a CPU's kernel takes them"


def test_repeated_heads_attend_as_grouped_ones():
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, heads, 20, 8) for heads in (6, 2, 2))
    attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True)
    found = attend(query, attention.repeated(key, 3), attention.repeated(value, 3))
    torch.testing.assert_close(found, attend(query, key, value, enable_gqa=True))


def test_generation_repeats_heads_where_no_kernel_takes_groups(monkeypatch):
    """In transformers' attention, whose own question is put first; on a CPU nothing changes."""
    repeat_where_no_kernel_takes_groups()
    chosen = sdpa_attention.use_gqa_in_sdpa
    repeat_where_no_kernel_takes_groups()
    assert sdpa_attention.use_gqa_in_sdpa is chosen, "once is enough"
    key = torch.zeros(1, 2, 9, 8)
    assert chosen(None, key, key) == chosen.without_kernel(None, key, key)
    monkeypatch.setattr(attention, "takes_groups", lambda query, mask: False)
    assert not chosen(None, key, key)
    passed = {}

    def watched(query, key, value, **options):
        passed.update(heads=key.shape[1], gqa=options.get("enable_gqa", False))
        return query

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    layer = SimpleNamespace(num_key_value_groups=3, is_causal=True, training=False)
    sdpa_attention.sdpa_attention_forward(layer, torch.zeros(1, 6, 9, 8), key, key, None)
    assert passed == {"heads": 6, "gqa": False}


@pytest.mark.parametrize("document", card_table.WORDS)
def test_the_table_of_cards_is_current(document):
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    begin, end = card_table.MARKERS
    assert text.partition(f"{begin}\n")[2].partition(end)[0] == card_table.table(document), "run `make card-table`"


def test_the_table_is_of_the_lock_and_of_torchs_own_list():
    locked = re.search(r"^torch==([\d.]+)$", (ROOT / "requirements-unhashed.lock").read_text(), re.MULTILINE)[1]
    assert torch.__version__.startswith(locked)
    assert f"torch=={locked}\n" in (ROOT / "docs/float16.md").read_text()
    assert f"torch=={locked}\n" in (ROOT / "docs/float16.zh.md").read_text()
    assert torch.version.cuda in (None, card_table.DEFAULT)
    assert card_table.build((7, 0)) == "older"
    assert card_table.build((7, 5)) == "default"
    assert card_table.build((3, 5)) == "none"
