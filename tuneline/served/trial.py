"""Trial of what can't be told from outside: faults are planted in the model here, to see which says what the server says."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tuneline.formats.html import Text
from tuneline.served.answers import common_prefix
from tuneline.served.asking import Said, suffix_tokens
from tuneline.served.expected import Item, Project
from tuneline.served.likelihoods import MEAN_ROUNDING, NEAR
from tuneline.served.prompts import begin_tokens

ITEMS = 12
"""Of them a trial takes as many, spread over the set."""
TOKENS = 24
"""Of an answer."""
AGREES = 0.75
"""Share of the answers in which a planted fault has to say what the server says."""
LARGEST = 4.0
"""Scale of an adapter that is looked for, 1 being its own."""
APART = 3.0
"""How many times as far another way to round to as many bits may move likelihoods."""


class Tried(NamedTuple):
    borne_out: dict[str, Text]
    """Faults that say what the server says, with their figures."""
    refuted: list[str]


class Model(Protocol):
    """The tuned model, with faults to plant: tuneline.served.local_model.LocalModel."""

    scales: Sequence[float]
    """Wrong scales that are usual, 1 being the adapter's own; none where it has none."""

    def scaled(self, factor: float) -> Any: ...

    def nll(self, item: Item) -> float: ...

    def answer(self, prompt: Sequence[int], tokens: int) -> list[int]: ...

    def round_weights(self, bits: int) -> None: ...


def chosen(items: Sequence[Any], most: int = ITEMS) -> list[Any]:
    """At most so many, evenly spread."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])


def try_weights(model: Model, project: Project, said: Said) -> Tried:
    """Adapter's scale and weights of few bits, by likelihoods. Nothing is said where the model here is not the tuned one."""
    pairs = [
        (item, served)
        for item, served in zip(project.items, said.nll, strict=True)
        if served is not None and item.tuned_nll is not None
    ]
    few = chosen(pairs)
    tuned = [float(item.tuned_nll) for item, _ in few if item.tuned_nll is not None]
    served = [nll for _, nll in few]
    tokens = sum(item.tokens for item, _ in few)

    def distance(to: Sequence[float], own: Sequence[float] | None = None) -> float:
        found = own if own is not None else [model.nll(item) for item, _ in few]
        return sum(abs(one - other) for one, other in zip(found, to, strict=True)) / tokens

    far = distance(tuned, served)
    if distance(tuned) > max(MEAN_ROUNDING, NEAR * far):
        return Tried({}, [])
    refuted = ["adapter_scale"]
    if model.scales:
        scale, left = best_scale(model, lambda: distance(served))
        if left <= max(MEAN_ROUNDING, NEAR * far) and abs(scale - 1) > NEAR / 2:
            said_so = Text(
                f"with the adapter at {scale:.2f} of its scale the model here says the same, up to {left:.3f}",
                f"适配器缩放为 {scale:.2f} 倍时，本地模型给出相同结果（相差 {left:.3f}）",
            )
            return Tried({"adapter_scale": said_so}, [])
    model.round_weights(4)
    moved = distance(tuned)
    if far <= APART * moved:
        how = Text(
            f"no scale of the adapter does that, and weights of 4 bits move the model here by {moved:.3f}",
            f"改变适配器的缩放得不到这样的偏离；权重为 4 位时，本地模型偏离 {moved:.3f}",
        )
        return Tried({"quantized_weights": how}, refuted)
    # With still fewer bits it may be.
    model.round_weights(3)
    return Tried({}, refuted if far <= APART * distance(tuned) else [*refuted, "quantized_weights"])


def best_scale(model: Model, distance: Callable[[], float]) -> tuple[float, float]:
    """(scale of the adapter at which the model comes nearest, how near)."""
    from scipy.optimize import minimize_scalar

    def at(scale: float) -> float:
        with model.scaled(scale):
            return distance()

    usual = {scale: at(scale) for scale in model.scales}
    nearest = min(usual, key=lambda scale: usual[scale])
    found = minimize_scalar(at, bounds=(0.0, LARGEST), method="bounded", options={"maxiter": 12, "xatol": 0.01})
    return min((usual[nearest], nearest), (float(found.fun), float(found.x)))[::-1]


def try_answers(model: Model, project: Project, said: Said, faults: Sequence[str]) -> Tried:
    """Faults of prompts and the adapter's scale, by the answers that differ."""
    differing = [
        (item, answer.ids)
        for item, answer in zip(project.items, said.answers, strict=True)
        if answer.ids[:TOKENS] != item.answer_ids[:TOKENS]
    ]
    few = chosen(differing)

    def agreeing(prompt_of: Callable[[Item], Sequence[int]], wanted: Callable[[Item, list[int]], list[int]]) -> float:
        same = [alike(model.answer(prompt_of(item), TOKENS), wanted(item, ids)) for item, ids in few]
        return sum(same) / len(same) if same else 0.0

    if not few or agreeing(lambda item: item.prompt, lambda item, _: item.answer_ids) < AGREES:
        return Tried({}, [])
    tried = Tried({}, [])
    for fault, change in prompt_changes(project).items():
        if fault in faults:
            share = agreeing(lambda item, change=change: change(item.prompt), lambda _, ids: ids)  # type: ignore[misc]
            _note(tried, fault, share, Text("so prompted", "用这样的提示词时"))
    for scale in model.scales if "adapter_scale" in faults and not tried.borne_out else ():
        with model.scaled(scale):
            share = agreeing(lambda item: item.prompt, lambda _, ids: ids)
        if share >= AGREES:
            _note(
                tried,
                "adapter_scale",
                share,
                Text(f"with the adapter at {scale:.2f} of its scale", f"适配器缩放为 {scale:.2f} 倍时"),
            )
            break
    return tried


def prompt_changes(project: Project) -> dict[str, Callable[[list[int]], list[int]]]:
    """Faults of a prompt that can be planted."""
    asked = project.prompter.generation_prompt([{"role": "user", "content": "x"}])
    begin = begin_tokens(asked, frozenset(project.prompter.control), project.reader.tokenizer.bos_token_id)
    suffix = suffix_tokens(project)
    changes: dict[str, Callable[[list[int]], list[int]]] = {}
    if begin:
        changes |= {"second_bos": lambda ids: [*ids[:begin], *ids], "no_bos": lambda ids: ids[begin:]}
    if suffix:
        changes["no_generation_prompt"] = lambda ids: ids[:-suffix]
    return changes


def alike(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two answers begin alike as far as a trial looks; the last tokens may be parts of a character."""
    most = TOKENS - 3
    return common_prefix(one[:most], other[:most]) == min(most, max(len(one[:most]), len(other[:most])))


def _note(tried: Tried, fault: str, share: float, how: Text) -> None:
    if share < AGREES:
        tried.refuted.append(fault)
        return
    tried.borne_out[fault] = Text(
        f"{how.en}, the model here gives {share:.0%} of the differing answers",
        f"{how.zh}，不同的回答中有 {share:.0%} 与本地模型的一致",
    )


def fits_memory(folder: Path) -> bool:
    """Whether the folder's weights, in float32, fit into what is free."""
    import psutil

    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return bool(2.2 * size < psutil.virtual_memory().available)
