"""Rows that leave their batch as they end: what each says is what transformers' own greedy search says."""

from itertools import combinations

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tests.helpers.families import FAMILIES, raw_checkpoint
from tests.helpers.methods import METHODS, method
from tests.helpers.published import PUBLISHED, publish
from tests.helpers.tiny_models import canonical
from tuneline.models.cpu_tuning import copy_head_states, packed_product, switched_product
from tuneline.models.decoding.row_decoding import can_give_up_rows, decode_rows
from tuneline.models.loading import load_model
from tuneline.train import methods

MATRIX = [pytest.param(name, marks=() if family.quick else pytest.mark.matrix) for name, family in PUBLISHED.items()]
NEW = 24
LENGTHS = (3, 31, 12, 19, 7, 26)
"""Of prompts, some of them longer than the sliding windows of 16."""


def prompts() -> dict[str, torch.Tensor]:
    torch.manual_seed(11)
    ids, mask = torch.randint(5, 200, (len(LENGTHS), max(LENGTHS))), torch.ones(len(LENGTHS), max(LENGTHS), dtype=int)
    for row, length in enumerate(LENGTHS):
        ids[row, :-length] = 0
        mask[row, :-length] = 0
    return {"input_ids": ids, "attention_mask": mask}


def told(model, stops: list[int], **more) -> list[list[int]]:
    """What transformers says, each row up to its end."""
    output = model.generate(**prompts(), **options(stops), **more)
    rows = output[:, max(LENGTHS) :].tolist()
    ends = [next((place + 1 for place, token in enumerate(row) if token in stops), NEW) for row in rows]
    return [row[:end] for row, end in zip(rows, ends, strict=True)]


def options(stops: list[int]) -> dict:
    ends = {"eos_token_id": stops or None, "pad_token_id": 0}
    return {"do_sample": False, "max_new_tokens": NEW, "top_k": None, "top_p": None, "temperature": None} | ends


def stops_of(rows: list[list[int]]) -> list[int]:
    """Two tokens at which some rows end early, at different lengths, and at least one goes on for longer."""

    def lengths(pair: tuple[int, int]) -> list[int]:
        return [min((row.index(one) + 1 for one in pair if one in row), default=NEW) for row in rows]

    said = sorted({token for row in rows for token in row})
    # Many lengths, and among them late ends.
    return list(max(combinations(said, 2), key=lambda pair: (len(set(lengths(pair))), sum(lengths(pair)))))


def check(model) -> list[int]:
    """Returns for how many rows each pass was."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            # As they are made, they say one token for ever.
            parameter += 0.2 * torch.randn_like(parameter)
    own = stops_of(told(model.eval(), []))
    expected, passes = told(model, own), []
    said = model.generate(**prompts(), **options(own), custom_generate=decode_rows, on_tokens=passes.append)
    assert said == expected
    assert sum(passes) == sum(map(len, said))
    return passes


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_leave_and_say_the_same(tmp_path, name):
    raw_checkpoint(name, tmp_path / "source")
    model = load_model(canonical(tmp_path / "source", tmp_path / "base", "float32"), torch.float32)
    assert len(set(check(model))) > 2


@pytest.mark.parametrize("name", MATRIX)
def test_rows_leave_every_family_as_published(tmp_path, name):
    publish(name, tmp_path / "source")
    model = load_model(canonical(tmp_path / "source", tmp_path / "base", "float32"), torch.float32)
    rows = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, states: rows.append(len(states[0])))
    passes = check(model)
    assert len(set(passes)) > 1
    # The last are those of decode_rows.
    assert rows[-len(passes) :] == passes


@pytest.mark.parametrize("name", [name for name in METHODS if "checkpointing" not in name])
def test_rows_leave_a_model_with_an_adapter(llama_base, name):
    changes = METHODS[name]
    model = methods.prepare(
        load_model(llama_base, torch.float32),
        method(
            changes.get("tune", {}).get("method", "lora"),
            **{key: value for key, value in changes.items() if key in ("lora", "ptuning", "freeze")},
        ),
    )
    assert len(set(check(model))) > 1


class Unfinished(DynamicLayer):
    """A layer of a cache with a state that its reordering leaves as it is."""

    def update(self, keys, values, *_, **__):
        self.seen = torch.zeros(len(keys), 3)
        return super().update(keys, values)


class Unable(DynamicLayer):
    def reorder_cache(self, beam_idx):
        raise NotImplementedError


@pytest.mark.parametrize(("kind", "able"), [(DynamicLayer, True), (Unfinished, False), (Unable, False)])
def test_a_cache_is_tried_before_a_row_leaves_it(kind, able):
    cache = DynamicCache()
    cache.layers = [DynamicLayer(), kind()]
    for layer in range(2):
        cache.update(torch.zeros(4, 2, 5, 8), torch.zeros(4, 2, 5, 8), layer)
    assert can_give_up_rows(cache, 4) is able
    assert cache.layers[1].keys.shape == (4, 2, 5, 8), "it is tried on a copy"
    assert not can_give_up_rows(object(), 4)


def test_where_rows_can_not_leave_they_stay_and_say_the_same(llama_base, monkeypatch):
    monkeypatch.setattr("tuneline.models.decoding.row_decoding.can_give_up_rows", lambda *_: False)
    model, rows = load_model(llama_base, torch.float32), []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, states: rows.append(len(states[0])))
    passes = check(model)
    assert passes[-1] < len(LENGTHS)
    assert set(rows) == {len(LENGTHS)}


@pytest.mark.parametrize("rows", [1, 7, 25, 40])
def test_a_packed_head_gives_the_same_bits(rows):
    torch.manual_seed(1)
    head = torch.nn.Linear(640, 3000, bias=False).to(torch.bfloat16)
    packed = packed_product(head)
    if packed is None:
        pytest.skip("this machine multiplies no bfloat16 by oneDNN")
    states = torch.randn(rows, 1, 640).to(torch.bfloat16)
    with torch.inference_mode():
        logits = head(states)
        assert torch.equal(packed(states), logits)
        put, take_away = switched_product(head)
        for switch, is_packed in ((put, True), (take_away, False), (take_away, False)):
            switch()
            assert ("forward" in vars(head)) is is_packed and torch.equal(head(states), logits)
        # Of equal logits, of which bfloat16 has many, the first.
        assert torch.equal(logits.max(-1).indices, logits.argmax(-1))
        assert torch.equal((logits * 4).round().max(-1).indices, (logits * 4).round().argmax(-1))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_head_gets_its_states_without_the_gaps_between_rows(rows):
    head, seen = torch.nn.Linear(8, 9, bias=False), []
    copied = copy_head_states(head)
    head.register_forward_pre_hook(lambda _, states: seen.append(states[0].stride()))
    last = torch.randn(rows, 7, 8)[:, -1:]
    assert last.stride() == (56, 8, 1)
    head(last)
    copied.remove()
    head(last)
    assert seen == [(8, 8, 1), (56, 8, 1)]


def test_only_a_plain_bfloat16_head_is_packed():
    assert packed_product(torch.nn.Linear(8, 8, bias=False)) is None
    for layer in (torch.nn.Linear(8, 8, bias=False), None):
        assert [switch() for switch in switched_product(layer)] == [None, None]
    assert packed_product(torch.nn.Linear(8, 8).to(torch.bfloat16)) is None
    assert packed_product(torch.nn.Embedding(8, 8)) is None
