"""What a model says on the held-out items: its greedy answer, and how likely it finds the reference.

`predict_base` asks the base and `evaluate` the tuned model, through the same function.
"""

from collections.abc import Iterable
from typing import Any, TypedDict

from tuneline.records import Record, answer
from tuneline.sections.evaluate import Evaluate


class Answer(TypedDict):
    """One line of base_answers.jsonl."""

    id: str
    prediction: str
    finished: bool
    """Whether it stopped by itself, before max_new_tokens."""
    nll: float
    """Sum over the reference answer's tokens, end token left out, in nats."""
    characters: int
    """Of the reference answer, by which `nll` is divided: 1 for an empty one (no triple is a right answer, too)."""


def ask(model: Any, tokenizer: Any, records: list[Record], params: Evaluate, label: str) -> list[Answer]:
    """One Answer per record, in order."""
    from tqdm import tqdm

    from tuneline.generation import greedy
    from tuneline.nll import answer_nll
    from tuneline.prompt import Prompter

    prompter = Prompter(tokenizer)
    generated = greedy(
        model,
        [prompter.generation_prompt(record["messages"][:-1]) for record in records],
        stop_ids=prompter.stop_ids,
        pad_id=tokenizer.pad_token_id or 0,
        max_new_tokens=params.max_new_tokens,
        batch_size=params.batch_size,
        decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
        label=f"{label}: answers",
    )
    answers: list[Answer] = []
    for record, (prediction, finished) in zip(tqdm(records, desc=f"{label}: NLL", unit="item"), generated, strict=True):
        nll = answer_nll(model, prompter.training_row(record["messages"], "last_answer"))
        answers.append(
            {
                "id": record["id"],
                "prediction": prediction,
                "finished": finished,
                # Without the end token, which is no character of the answer.
                "nll": round(float(nll[:-1].double().sum()), 6),
                "characters": max(1, len(answer(record))),
            }
        )
    return answers


def pair(records: list[Record], answers: Iterable[Any]) -> list[Answer]:
    """Answers in the order of the records, paired by id. Raises ValueError when an item has none."""
    known = {entry["id"]: entry for entry in answers}
    missing = [record["id"] for record in records if record["id"] not in known]
    if missing or len(known) != len(records):
        raise ValueError(
            f"base answers and held-out items differ ({len(known)} and {len(records)}, missing {missing[:3]}): "
            "run `dvc repro predict_base`"
        )
    return [known[record["id"]] for record in records]
