"""Batch of one model's rows: prompts are taken in, every step gives each row one token, and rows that end leave."""

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from chat.batching.caches import join, new_cache, select
from chat.batching.rows import Row, score_tokens
from chat.batching.scheduling import prompts_together
from tuneline.models.decoding.batches import left_padded, likeliest

PROMPT_TOKENS = 512
"""Tokens of prompts, padding included, that are taken in between two steps: so long the other rows wait."""
SCORED_TOKENS = 64
"""The same where each position's logits are wanted: 67 MB in float32 for 262,144 words."""


class Batch:
    """Running batch of a network whose rows can share one (chat/batching/trial.py).

    All rows end in the same column; `mask` [B, T] has 0 where a row is padded.
    """

    def __init__(self, network: Any, pad_id: int) -> None:
        self.network, self.pad_id = network, pad_id
        self._empty()

    def _empty(self) -> None:
        self.rows: list[Row] = []
        self.cache: Any = None
        self.mask = torch.empty(0)
        self._arriving: deque[Row] = deque()
        self._entry: Iterator[None] | None = None
        self._entering: list[Row] = []

    def __len__(self) -> int:
        """Rows that run or are about to."""
        return len(self.rows) + len(self._arriving) + len(self._entering)

    def add(self, row: Row) -> None:
        """Queue a row, which joins the batch within the next calls of `advance`."""
        self._arriving.append(row)

    def advance(self) -> None:
        """One step of the rows that run, and a part of the prompts that are to join them."""
        self._leave()
        if self.rows:
            self._step()
            self._leave()
        self._enter()

    def fail(self, error: BaseException) -> None:
        """Give every row this error; the batch is empty then."""
        for row in (*self.rows, *self._entering, *self._arriving):
            row.end(error)
        self._empty()

    def _step(self) -> None:
        ids = torch.tensor([row.tokens[-1:] for row in self.rows])
        places = torch.tensor([[len(row.prompt) + len(row.tokens) - 1] for row in self.rows])
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        logits = run(self.network, ids, self.mask, places, self.cache)
        take(self.rows, logits[:, -1])

    def _leave(self) -> None:
        """Rows that have ended leave, and so do columns in which all others are padded."""
        left = [number for number, row in enumerate(self.rows) if not row.ended]
        if len(left) == len(self.rows):
            return
        for row in self.rows:
            if row.ended:
                row.end()
        self.rows = [self.rows[number] for number in left]
        if not left:
            self.cache = None
            return
        # The last token of a row is not in the cache yet.
        width = max(len(row.prompt) + len(row.tokens) for row in self.rows) - 1
        self.mask = self.mask[left, -width:]
        select(self.cache, left, width)

    def _enter(self) -> None:
        """Go on with the prompts that are being taken in, or begin with the next ones."""
        if self._entry is None:
            for row in self._arriving:
                if row.gone:
                    row.end()
            self._arriving = deque(row for row in self._arriving if not row.over)
            if not self._arriving:
                return
            self._entering = [self._arriving.popleft() for _ in range(self._together())]
            self._entry = self._take_in(self._entering)
        try:
            next(self._entry)
        except StopIteration:
            self._entry, self._entering = None, []

    def _together(self) -> int:
        # A row whose prompt is scored comes alone: its logits take the room.
        plain = next((n for n, row in enumerate(self._arriving) if row.scores_prompt), len(self._arriving))
        lengths = [len(row.prompt) for row in self._arriving][: max(plain, 1)]
        return prompts_together(lengths, PROMPT_TOKENS)

    def _take_in(self, rows: Sequence[Row]) -> Iterator[None]:
        """Read prompts into a cache of their own, a part at a time, and join it to the batch's."""
        ids, mask = left_padded([row.prompt for row in rows], self.pad_id)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        cache, scored = new_cache(self.network), rows[0].scores_prompt
        size = SCORED_TOKENS if scored else PROMPT_TOKENS
        scores: list[Any] = [None]
        for start in range(0, ids.shape[1], size):
            if start:
                yield
                if rows[0].gone:
                    rows[0].end()
                    return
            part = slice(start, start + size)
            keep = 0 if scored else 1
            logits = run(self.network, ids[:, part], mask[:, : part.stop], places[:, part], cache, keep)
            if scored:
                scores += score_prompt(rows[0], logits[0], start)
        if scored:
            rows[0].output.put(scores)
        take(rows, logits[:, -1])
        self._join(list(rows), cache, mask)

    def _join(self, rows: list[Row], cache: Any, mask: torch.Tensor) -> None:
        if self.rows:
            width = max(self.mask.shape[1], mask.shape[1])
            pads = [torch.nn.functional.pad(one, (width - one.shape[1], 0)) for one in (self.mask, mask)]
            join(self.cache, cache)
            self.mask = torch.cat(pads)
        else:
            self.cache, self.mask = cache, mask
        self.rows += rows
        self._leave()


def run(network: Any, ids: Any, mask: Any, places: Any, cache: Any, keep: int = 1) -> torch.Tensor:
    """Logits, float32 [B, t, V], of ids [B, t] at positions `places` behind the cache; of the last `keep`, or of all (0)."""
    device = network.device
    options = {"position_ids": places.to(device)} if "position_ids" in arguments_of(network) else {}
    output = network(
        input_ids=ids.to(device), attention_mask=mask.to(device), past_key_values=cache, use_cache=True,
        logits_to_keep=keep, **options,
    )  # fmt: skip
    return output.logits.float()


def arguments_of(network: Any) -> frozenset[str]:
    return frozenset(inspect.signature(network.forward).parameters)


def take(rows: Sequence[Row], logits: torch.Tensor) -> None:
    """Give each row its next token by logits [B, V]."""
    for row, scores, best in zip(rows, logits, likeliest(logits).tolist(), strict=True):
        try:
            row.take(scores, best)
        except Exception as error:
            row.end(error)


def score_prompt(row: Row, logits: torch.Tensor, start: int) -> list[Any]:
    """Scores of the prompt's tokens that follow the positions from `start` on, whose logits [t, V] these are."""
    targets = row.prompt[start + 1 : start + 1 + len(logits)]
    return list(score_tokens(logits[: len(targets)], targets, row.top_logprobs or 0)) if targets else []
