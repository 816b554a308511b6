"""Teacher-forced negative log-likelihood of reference answers: what evaluation and export both measure."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tuneline.formats.example import Encoded
from tuneline.models.chunked_loss import supervised_positions, token_nll
from tuneline.runtime.progress import track

TOKENS = 1024
"""Of rows that are computed together, with what pads them."""


class AnswerStates(NamedTuple):
    """What a model makes of one row's reference answer, at the positions that predict a supervised token."""

    row: int
    """Its number among the rows."""
    states: torch.Tensor
    """[n, H]: all that its logits need."""
    targets: torch.Tensor
    """[n]."""


def head_weight(model: Any) -> torch.Tensor:
    """The LM head's weight [V, H]. Raises ValueError for a head with a bias, which the chunked loss has not."""
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ValueError(f"{type(model).__name__} has an LM head with a bias, expected a plain matrix")
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def logit_scale(model: Any) -> float:
    """By what a transformers model multiplies its logits, or the states that its head takes."""
    config = model.config.get_text_config()
    if (divided := getattr(config, "logits_scaling", None)) is not None:
        # HyperCLOVA X has the name of Granite's divisor for a factor.
        return float(divided) if config.model_type == "hyperclovax" else 1 / divided
    return float(getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0)


def logit_cap(model: Any) -> float | None:
    """The soft cap of a transformers model's logits: z becomes cap * tanh(z / cap)."""
    cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return cap


def head_states(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states [..., H], so that logits are their product with the head's weight, before a cap."""
    scale = logit_scale(model)
    return hidden if scale == 1.0 else hidden * scale


def answer_nll(model: Any, row: Encoded) -> torch.Tensor:
    """-log p of each supervised token of the row in nats, float32 [n], on the CPU. `model` is a plain or PEFT model.

    Raises ValueError when float16 is too small for the model: they are no numbers then.
    """
    return answer_nlls(model, [row], [0], None)[0]


@torch.inference_mode()
def answer_nlls(model: Any, rows: Sequence[Encoded], groups: Sequence[int], label: str | None) -> list[torch.Tensor]:
    """`answer_nll` of each row, in order, under a progress bar with the label.

    Rows are computed together only within their group: what is computed together changes float results, so a group has to be
    the same wherever it is computed.
    """
    found: dict[int, torch.Tensor] = {}
    places = [[row for row, one in enumerate(groups) if one == group] for group in sorted(set(groups))]
    computed = (
        (group[one.row], nll)
        for group in places
        for batch in answer_states(model, [rows[row] for row in group])
        for one, nll in zip(batch, _nll(model, batch), strict=True)
    )
    for row, nll in computed if label is None else track(computed, label, len(rows), "items"):
        found[row] = nll
    return [found[row] for row in range(len(rows))]


def _nll(model: Any, batch: Sequence[AnswerStates]) -> Sequence[torch.Tensor]:
    """Of each row: the head's product is one for all, since it reads all words for one state as for many."""
    states, targets = (torch.cat(parts) for parts in ([one.states for one in batch], [one.targets for one in batch]))
    plain = unwrap_peft(model)
    head = head_weight(plain)
    # Another GPU's, where the layers are dealt to several.
    nll = token_nll(states.to(head.device), head, targets.to(head.device), logit_cap(plain)).cpu()
    if states.dtype == torch.float16 and not torch.isfinite(nll).all():
        raise ValueError(
            "float16 is too small for what this model computes, its probabilities are no numbers: set train.dtype and "
            "evaluate.dtype to float32; `base`, which has no such parameter, computes on the CPU with DS_ACCELERATOR=cpu"
        )
    return nll.split([len(one.targets) for one in batch])


@torch.inference_mode()
def answer_states(model: Any, rows: Sequence[Encoded], tokens: int = TOKENS) -> Iterator[list[AnswerStates]]:
    """Of each row, those of like length together, as `row_states` has them."""
    for batch in row_states(model, rows, tokens):
        found = []
        for row, states in batch:
            labels = torch.tensor([rows[row].labels], device=states.device)
            found.append(AnswerStates(row, *supervised_positions(states[None], labels)))
        yield found


@torch.inference_mode()
def row_states(model: Any, rows: Sequence[Encoded], tokens: int = TOKENS) -> Iterator[list[tuple[int, torch.Tensor]]]:
    """Numbers of rows, and what the head takes at each of their T positions, [T, H].

    Those of like length together: longest first, up to so many tokens with the padding. It is on the right, where what comes
    after a token changes nothing of it.
    """
    for batch in _alike([len(row.input_ids) for row in rows], tokens):
        width = len(rows[batch[0]].input_ids)
        ids = torch.tensor([[*rows[row].input_ids, *[0] * (width - len(rows[row].input_ids))] for row in batch])
        hidden = head_states(unwrap_peft(model), _hidden(model, ids.to(model.device)))
        yield [(row, states[: len(rows[row].input_ids)]) for row, states in zip(batch, hidden, strict=True)]


def _alike(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Numbers of rows that are computed together; a row longer than `tokens` is alone."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def unwrap_peft(model: Any) -> Any:
    """The transformers model inside a PEFT model, adapter layers still in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _hidden(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states [B, T, H] of ids [B, T], without virtual tokens that a method puts before them."""
    if hasattr(model, "active_peft_config") and model.active_peft_config.is_prompt_learning:
        # Only PEFT's own forward pass knows where its virtual tokens go.
        output = model(input_ids=ids, output_hidden_states=True, logits_to_keep=1, use_cache=False)
        states: torch.Tensor = output.hidden_states[-1][:, -ids.shape[1] :]
        return states
    hidden: torch.Tensor = unwrap_peft(model).base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden
