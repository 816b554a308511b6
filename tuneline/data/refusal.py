"""Refusal of a source that would be learnt wrongly: a task's field that nothing reads, and pairs of good and bad answers."""

from collections import Counter

from tuneline.data.config import Source
from tuneline.data.fields.accounted import remedy, unsettled

SENTENCES = {
    "preference_pair": (
        "are preference pairs, a good and a bad answer to each: `preference: chosen` under this source in params.yaml learns "
        "the good ones"
    ),
    "two_outputs_each": (
        "have two outputs each, as preference pairs have, the better one first: `preference: chosen` under this source in "
        "params.yaml learns the better ones, `columns: {answer: output}` takes both for right"
    ),
    "several_dialogues_in_answer": (
        "have several dialogues in their answer, and nothing says which is good: name the good one, as in "
        "`columns: {messages: answer.0}` under this source in params.yaml"
    ),
}
"""Reasons for which a source is refused whatever data.max_reject_rate is."""


def refused(source: Source, reasons: Counter[str], unused: Counter[str]) -> str:
    """Why a source can't be learnt as it stands, and the line of params.yaml that settles it; "" when it can."""
    for reason, sentence in SENTENCES.items():
        if reasons[reason]:
            return f"is refused: {reasons[reason]} of its items {sentence}"
    open_fields = unsettled(unused, settled_fields(source))
    if not open_fields:
        return ""
    found = ", ".join(f"{path} ({count} items)" for path, count in open_fields.most_common(5))
    first = open_fields.most_common(1)[0][0]
    return f"is refused: its task rests on fields that no reader uses: {found}; {remedy(first)}"


def settled_fields(source: Source) -> list[str]:
    """Fields about which params.yaml says what to do."""
    replaced = ["instruction", "instruct"] if source.template is not None or source.instruction is not None else []
    rest = ["prompt", "query", "问题"] if source.columns or source.question else []
    return [*source.ignore, *source.use, *replaced, *rest]
