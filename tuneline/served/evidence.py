"""Evidence out of what a server said, beside what is expected of it."""

from collections.abc import Sequence

from tuneline.served.answers import AnswerPair, agreement, common_prefix
from tuneline.served.asking import Said
from tuneline.served.expected import Item, Project
from tuneline.served.lengths import compare_lengths
from tuneline.served.likelihoods import ItemNll, Likelihoods, compare_nll
from tuneline.served.prompts import PromptDifference, PromptFormat, compare_prompt
from tuneline.served.verdict import Evidence

TELLING = 8
"""Tokens that two answers have in common when they are the same but for rounding later on."""
FEWEST = 3
"""Items that have to tell two models apart."""


def gather(project: Project, said: Said, *, worse: bool) -> Evidence:
    items = project.items
    return Evidence(
        answers=agreement(answer_pairs(items, said)),
        prompts=prompt_differences(project, said),
        lengths=compare_lengths(said.lengths) if said.lengths else None,
        nll=likelihoods(items, said),
        base_like=likeness([item.base_ids for item in items], items, said),
        unstable=sum(one.ids != other.ids for one, other in said.again),
        again=len(said.again),
        thinking=sum(bool(answer.thoughts) != thought(item) for item, answer in zip(items, said.answers, strict=True)),
        worse=worse,
    )


def answer_pairs(items: Sequence[Item], said: Said) -> list[AnswerPair]:
    return [
        AnswerPair(item.answer_ids, answer.ids, item.ended, answer.finish)
        for item, answer in zip(items, said.answers, strict=True)
    ]


def prompt_format(project: Project) -> PromptFormat:
    marks, tokenizer = project.prompter.thought_marks, project.reader.tokenizer
    return PromptFormat(
        frozenset(project.prompter.control),
        tuple(filter(None, (marks.open, marks.close))),
        lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False)),
        tokenizer.bos_token_id,
    )


def prompt_differences(project: Project, said: Said) -> list[PromptDifference] | None:
    shown = [prompt for prompt in said.prompts if prompt is not None]
    if len(shown) < len(project.items):
        return None
    form = prompt_format(project)
    return [
        compare_prompt(item.prompt, prompt, form, has_system=item.has_system)
        for item, prompt in zip(project.items, shown, strict=True)
    ]


def likelihoods(items: Sequence[Item], said: Said) -> Likelihoods | None:
    """None where the server, or evaluation, could not say them."""
    known = [
        ItemNll(served, item.tuned_nll, item.tuned_nll if item.base_nll is None else item.base_nll, item.tokens)
        for item, served in zip(items, said.nll, strict=True)
        if served is not None and item.tuned_nll is not None
    ]
    return compare_nll(known) if known else None


def likeness(others: Sequence[Sequence[int] | None], items: Sequence[Item], said: Said) -> float | None:
    """Share of the answers that are another model's, of those in which it differs from ours; None where they are too few."""
    votes = []
    for other, item, answer in zip(others, items, said.answers, strict=True):
        if other is None or common_prefix(other, item.answer_ids) >= min(TELLING, len(item.answer_ids), len(other)):
            continue
        common = common_prefix(other, answer.ids)
        votes.append(common >= min(TELLING, len(other)) and common > common_prefix(item.answer_ids, answer.ids))
    return sum(votes) / len(votes) if len(votes) >= FEWEST else None


def thought(item: Item) -> bool:
    """Whether the tuned model thought before its answer."""
    return bool(item.row.get("thoughts", {}).get("tuned"))
