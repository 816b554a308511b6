"""Batched greedy generation: prompts of similar length together, longest first, padded on the left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import LogitsProcessorList, StoppingCriteria

from tuneline.models.cpu_tuning import copy_head_states, packed_product
from tuneline.models.decoding.batches import left_padded
from tuneline.models.decoding.row_decoding import decode_rows
from tuneline.models.likelihood import unwrap_peft
from tuneline.models.thoughts import ThoughtMarks
from tuneline.runtime.progress import ProgressBar

if TYPE_CHECKING:
    from tuneline.models.constrained_decoding import ItemConstraints


class Generated(NamedTuple):
    text: str
    stopped_at_eos: bool
    """Whether it ended with a stop token, before the limit."""
    tokens: int
    """Its end token included."""
    batch: int
    """Number of its batch."""
    thoughts: str = ""
    """What was thought before."""
    unfinished_thought: bool = False
    """Whether the thought had no end, so that there is no answer."""


class Thoughts(NamedTuple):
    """How the thoughts before answers are treated."""

    marks: ThoughtMarks
    expected: Sequence[bool]
    """By prompt, whether there may be some."""
    opened: Sequence[bool]
    """By prompt, whether it has begun one."""
    limit: int
    """Tokens of a thought."""


class BatchTime(NamedTuple):
    items: int
    tokens: int
    """Of the answers, without what a batch computes for rows that have ended."""
    seconds: float


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Item numbers per batch, longest prompt first (out of memory shows at once); ties keep their order."""
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.inference_mode()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    batch_size: int,
    decode: Callable[[list[int]], str],
    label: str,
    constraints: "ItemConstraints | None" = None,
    thoughts: Thoughts | None = None,
) -> tuple[list[Generated], list[BatchTime]]:
    """An answer for each prompt, in the prompts' order, and how long each batch took.

    The composition of batches is fixed by the prompts: it changes float results, so it must not vary. A thought has tokens
    of its own, before those of the answer. Of a constrained answer that was cut, the items that are whole remain.
    """
    none = [False] * len(prompts)
    thoughts = thoughts or Thoughts(ThoughtMarks(), none, none, 0)
    answers: dict[int, Generated] = {}
    times: list[BatchTime] = []
    progress = ProgressBar(label, len(prompts) * max_new_tokens, "tokens")
    with _head_for_few_rows(model), progress as bar:
        for number, batch in enumerate(plan_batches([len(prompt) for prompt in prompts], batch_size)):
            started, expected = monotonic(), bar.done + len(batch) * max_new_tokens
            ids, mask = left_padded([prompts[item] for item in batch], pad_id)
            thinking = any(thoughts.expected[item] for item in batch)
            limits = _Limits(ids.shape[1], batch, thoughts, decode, max_new_tokens)
            rows = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens + thoughts.limit * thinking,
                do_sample=False,
                num_beams=1,
                top_k=None,
                top_p=None,
                temperature=None,
                eos_token_id=list(stop_ids),
                pad_token_id=pad_id,
                logits_processor=LogitsProcessorList([constraints.processor(batch)] if constraints else []),
                stopping_criteria=[limits] if thinking else None,
                custom_generate=decode_rows,
                on_tokens=bar.update,
            )
            for item, row in zip(batch, rows, strict=True):
                complete = partial(constraints.complete, item) if constraints else list[int]
                answers[item] = _until_stop(
                    row, stop_ids, complete, decode, number, thoughts.marks, thoughts.opened[item]
                )
            generated = sum(answers[item].tokens for item in batch)
            times.append(BatchTime(len(batch), generated, monotonic() - started))
            # Every answer of the batch has ended: there is less to do than was thought.
            bar.total = (bar.total or 0) - max(0, expected - bar.done)
    return [answers[item] for item in range(len(prompts))], times


class _Limits(StoppingCriteria):
    """Ends a thought that is longer than its limit, and an answer that is longer than max_new_tokens after its thought."""

    def __init__(
        self, prompt: int, batch: Sequence[int], thoughts: Thoughts, decode: Callable[[list[int]], str], answer: int
    ) -> None:
        self.prompt, self.thoughts, self.decode, self.answer = prompt, thoughts, decode, answer
        self.opened = [thoughts.opened[item] for item in batch]
        self.answered: list[int | None] = [None] * len(batch)
        """By row, at which length its answer began."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        rows = input_ids[:, self.prompt :].tolist()
        return torch.tensor([self._over(place, row) for place, row in enumerate(rows)], device=input_ids.device)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """The others have left the batch."""
        self.opened, self.answered = [self.opened[row] for row in rows], [self.answered[row] for row in rows]

    def _over(self, place: int, row: list[int]) -> bool:
        began = self.answered[place]
        if began is None:
            said = self.thoughts.marks.split(self.decode(row), self.opened[place])
            if said.unfinished:
                return len(row) >= self.thoughts.limit
            # Too little may be there to tell whether it is a thought.
            if not said.thoughts and self.thoughts.marks.open.startswith(self.decode(row).strip()):
                return False
            began = self.answered[place] = len(row) if said.thoughts else 0
        return len(row) - began >= self.answer


@contextmanager
def _head_for_few_rows(model: Any) -> Iterator[None]:
    """Hand the LM head copies of the last position's states, and pack its weight."""
    head = unwrap_peft(model).get_output_embeddings()
    copied = copy_head_states(head)
    packed = packed_product(head)
    if packed is not None:
        head.forward = packed
    try:
        yield
    finally:
        copied.remove()
        if packed is not None:
            del head.forward


def _until_stop(
    row: list[int],
    stop_ids: Sequence[int],
    complete: Callable[[list[int]], list[int]],
    decode: Callable[[list[int]], str],
    batch: int,
    marks: ThoughtMarks,
    opened: bool,
) -> Generated:
    end = next((place for place, token in enumerate(row) if token in stop_ids), None)
    # An answer cut at the limit may end within a character.
    text = decode(complete(row) if end is None else row[:end]).strip().rstrip("\ufffd")
    said = marks.split(text, opened)
    size = len(row) if end is None else end + 1
    return Generated(said.answer, end is not None and not said.unfinished, size, batch, said.thoughts, said.unfinished)
