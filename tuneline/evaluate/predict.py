"""What a model says on the held-out items: its greedy answer, and how likely it finds the reference.

`predict_base` asks the base and `evaluate` the tuned model, through the same function.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from tuneline.evaluate.config import Evaluate
from tuneline.formats.records import Message, Record, answer

if TYPE_CHECKING:
    from tuneline.evaluate.generate import BatchTime, Generated


class Answer(TypedDict):
    """One line of base_answers.jsonl."""

    id: str
    prediction: str
    finished: bool
    """Whether it stopped by itself, before max_new_tokens."""
    nll: float
    """Sum over the reference answer's tokens in nats, end token left out; an empty answer (no triple is right) has it alone."""
    tokens: int
    """Of the reference answer, which `nll` is the sum over."""
    characters: int
    """Of the reference answer: 1 for an empty one."""
    batch: int
    """Number of the batch that it was generated in, whose composition changes float results."""


class Asked(NamedTuple):
    answers: list[Answer]
    speed: dict[str, Any]
    """For metrics/speed: tokens a second, and each batch's items, tokens and seconds."""


def ask(model: Any, tokenizer: Any, records: list[Record], params: Evaluate, label: str) -> Asked:
    """One Answer per record, in order."""
    from tqdm import tqdm

    from tuneline.models.chat_format import Prompter
    from tuneline.models.likelihood import answer_nll

    prompter = Prompter(tokenizer)
    generated, times = generate(model, tokenizer, prompter, [one["messages"][:-1] for one in records], params, label)
    answers: list[Answer] = []
    for record, said in zip(tqdm(records, desc=f"{label}: NLL", unit="item"), generated, strict=True):
        nll = answer_nll(model, prompter.training_row(record["messages"], "last_answer"))
        # The end token is no character of the answer; but an empty one consists of nothing else.
        own = nll[:-1] if len(nll) > 1 else nll
        answers.append(
            {
                "id": record["id"],
                "prediction": said.text,
                "finished": said.finished,
                "nll": round(float(own.double().sum()), 6),
                "tokens": len(own),
                "characters": max(1, len(answer(record))),
                "batch": said.batch,
            }
        )
    return Asked(answers, speed(times))


def generate(
    model: Any, tokenizer: Any, prompter: Any, questions: list[list[Message]], params: Evaluate, label: str
) -> tuple[list["Generated"], list["BatchTime"]]:
    """Greedy answers to conversations that end with a user's turn."""
    from tuneline.evaluate.generate import greedy

    return greedy(
        model,
        [prompter.generation_prompt(question) for question in questions],
        stop_ids=prompter.stop_ids,
        pad_id=tokenizer.pad_token_id or 0,
        max_new_tokens=params.max_new_tokens,
        batch_size=params.batch_size,
        decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
        label=f"{label}: answers",
    )


def speed(times: list["BatchTime"]) -> dict[str, Any]:
    seconds = sum(one.seconds for one in times)
    batches = [one._asdict() | {"seconds": round(one.seconds, 2)} for one in times]
    return {
        "new_tokens_per_second": round(sum(one.tokens for one in times) / seconds, 1),
        "seconds_per_item": round(seconds / sum(one.items for one in times), 3),
        "batches": batches,
    }


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
