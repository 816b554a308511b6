"""Forward passes over rows, kept in parts: what was computed once is read, and a killed pass goes on where it was."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuneline.cli.rows.items import answer_begin
from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.models.chunked_loss import supervised_positions, token_nll
from tuneline.models.likelihood import head_weight, logit_cap, row_states, unwrap_peft
from tuneline.runtime.atomic import atomic_output
from tuneline.runtime.progress import ProgressBar

PART = 2**15
"""Tokens whose results are written together: half a minute of two CPU cores."""
Values = dict[str, NDArray[np.float32]]
"""By name, an entry a row."""


def nll_pass(
    model: Callable[[], Any], rows: Sequence[Encoded], budget: int, folder: Path, label: str, *, pooled: bool = False
) -> Values:
    """`nll` and `last`, both [rows]: -log p summed over a row's supervised tokens, and over its last answer's, in nats.

    If asked for, `prompt` and `answer`, [rows, H]: what the head takes, averaged over the positions before the last answer, and
    over those of it. `model` is asked for only when something is left to do, `budget` are tokens of a batch, and `folder`
    keeps the parts.
    """
    found: dict[int, list[NDArray[np.float32]]] = {}
    names = ("nll", "last", "prompt", "answer") if pooled else ("nll", "last")
    folder.mkdir(parents=True, exist_ok=True)
    with ProgressBar(label, len(rows), "rows") as bar:
        for number, part in enumerate(parts([len(row.input_ids) for row in rows])):
            file = folder / f"{number:06}.npz"
            if not file.is_file():
                computed = _part(model(), [rows[row] for row in part], budget, pooled)
                with atomic_output(file) as partial, partial.open("wb") as stream:
                    np.savez(stream, allow_pickle=False, **dict(zip(names, computed, strict=True)))
            with np.load(file, allow_pickle=False) as kept:
                columns = [kept[name] for name in names]
            found |= {row: [column[place] for column in columns] for place, row in enumerate(part)}
            bar.update(len(part))
    return {
        name: np.array([found[row][place] for row in range(len(rows))], dtype=np.float32)
        for place, name in enumerate(names)
    }


def parts(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of rows, longest first, of about PART tokens together."""
    part: list[int] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        part.append(row)
        tokens += lengths[row]
        if tokens >= PART:
            yield part
            part, tokens = [], 0
    if part:
        yield part


@torch.inference_mode()
def _part(model: Any, rows: Sequence[Encoded], budget: int, pooled: bool) -> list[NDArray[np.float32]]:
    sums = np.zeros((2, len(rows)), dtype=np.float32)
    means: list[dict[int, NDArray[np.float32]]] = [{}, {}]
    for batch in row_states(model, rows, budget):
        numbers = [row for row, _ in batch]
        nlls = _token_nlls(model, [states for _, states in batch], [rows[row].labels for row in numbers])
        for (row, states), nll in zip(batch, nlls, strict=True):
            begin = answer_begin(rows[row])
            last = len(rows[row].labels[begin:]) - rows[row].labels[begin:].count(IGNORE_INDEX)
            sums[:, row] = float(nll.sum()), float(nll[-last:].sum())
            if pooled:
                for mean, span in zip(means, (states[:begin], states[begin:]), strict=True):
                    mean[row] = span.float().mean(0).cpu().numpy()
    return [*sums, *(np.stack([mean[row] for row in range(len(rows))]) for mean in means if pooled)]


def _token_nlls(model: Any, hidden: Sequence[torch.Tensor], labels: Sequence[list[int]]) -> Sequence[torch.Tensor]:
    """-log p of each row's supervised tokens, of states [T, H] and labels [T]: one product with the head for all."""
    plain = unwrap_peft(model)
    head, cap = head_weight(plain), logit_cap(plain)
    pairs = [
        supervised_positions(states[None], torch.tensor([own], device=states.device))
        for states, own in zip(hidden, labels, strict=True)
    ]
    states, targets = (torch.cat(columns).to(head.device) for columns in zip(*pairs, strict=True))
    return token_nll(states, head, targets, cap).cpu().split([len(own) for _, own in pairs])
