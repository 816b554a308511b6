"""Answers of one model to the held-out questions and the general prompts, by all devices that have the memory for it.

Each device has a process of its own, which is dealt whole batches: what is in a batch changes float results, and so how
many devices there are changes nothing.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.general_prompts import General, predict_general, prompts_of, question_of
from tuneline.evaluate.predict import DTYPE, Answer, Predictions, load, predict, prompt_lengths, prompter_of
from tuneline.formats.extraction import Classes
from tuneline.formats.records import Record
from tuneline.runtime.children import in_children
from tuneline.runtime.terminal.lines import say

if TYPE_CHECKING:
    from tuneline.evaluate.endpoint.kept import Kept
    from tuneline.models.devices.placement import Place


class Questions(NamedTuple):
    """What is asked, and of which model."""

    base: Path
    adapter: Path | None
    records: list[Record]
    classes: Classes
    params: Evaluate
    label: str
    """The stage's name, before what it says."""


class Answered(NamedTuple):
    answers: list[Answer]
    """In the records' order."""
    general: list[General]
    run_info: dict[str, Any]
    """For metrics/speed."""
    kept: "Kept | None" = None
    """Where a server answered: what is to be forgotten once the outputs are in place."""

    def forget(self) -> None:
        if self.kept is not None:
            self.kept.forget()


class Share(NamedTuple):
    """What one process does."""

    questions: Questions
    place: "Place"
    number: int
    of: int


class Part(NamedTuple):
    """What one process has done: its items by number, and its general prompts by name."""

    answers: dict[int, Answer]
    general: dict[str, General]
    device: dict[str, str]
    speed: dict[str, Any]
    """Empty for a process without items."""


def answer(questions: Questions, places: "Sequence[Place] | None" = None) -> Answered:
    """All answers; without `places` the free memory of this machine's GPUs says where, unless a server answers.

    Raises what `in_children` does, and ValueError for a server that does not answer.
    """
    if questions.params.backend == "endpoint":
        from tuneline.evaluate.endpoint.answering import answer_by_endpoint

        return answer_by_endpoint(questions)
    places = chosen_places(questions) if places is None else places
    shares = [Share(questions, place, number, len(places)) for number, place in enumerate(places)]
    general = list(prompts_of(questions.params))
    if len(shares) == 1:
        # In this process, and so is all that a debugger or Ctrl-C reaches.
        return together([answer_share(shares[0])], general)
    return together(in_children(answer_share, shares, [place.name for place in places]), general)


def chosen_places(questions: Questions) -> "list[Place]":
    """Says what a user should know of the choice."""
    from tuneline.models.devices.placement import place

    size = questions.params.batch_size
    batches = -(-len(questions.records) // size) + -(-len(prompts_of(questions.params)) // size)
    found = place(questions.base, questions.params.dtype, DTYPE, batches)
    if found.sentence:
        say(f"{questions.label}: {found.sentence}")
    elif len(found.places) > 1:
        names = ", ".join(one.name for one in found.places)
        say(f"{questions.label}: {batches} batches on {names}, a process each")
    return found.places


def answer_share(share: Share) -> Part:
    """Load the model and answer what is this process's to answer."""
    questions, place, number, of = share
    if place.device.type == "cuda":
        import torch

        torch.cuda.set_device(place.device)
    base, adapter, records, classes, params, label = questions
    model = load(base, params, adapter, place)
    own, names = list(range(len(records))), list(prompts_of(params))
    numbers: list[int] | None = None
    if of > 1:
        batches, names = dealt(model.tokenizer, questions, number, of)
        own, numbers = sorted(chain(*batches.values())), list(batches)
    done = Predictions([], {})
    if own:
        done = predict(model, [records[item] for item in own], params, label, classes)
    answers = dict(zip(own, done.answers, strict=True))
    speed = done.run_info
    if numbers is not None:
        # Alone, the batches were counted from 0.
        answers = {item: renumbered(one, numbers) for item, one in answers.items()}
        speed = {"batches": dict(zip(numbers, speed.get("batches", []), strict=True))}
    general = predict_general(model, params, label, names) if names else []
    return Part(answers, {line["id"]: line for line in general}, model.run_info, speed)


def renumbered(one: Answer, numbers: Sequence[int]) -> Answer:
    """An answer with the number of its batch among all."""
    assert one["batch"] is not None, "only a server's answers have none"
    return one | {"batch": numbers[one["batch"]]}


def dealt(tokenizer: Any, questions: Questions, process: int, of: int) -> tuple[dict[int, list[int]], list[str]]:
    """Batches of items by their number, and names of general prompts, that process `process` of `of` answers.

    Planned alone they are the same batches: only the last of all may be short, and it is the last of its process, too.
    """
    from tuneline.models.decoding.generate import plan_batches

    prompter, size = prompter_of(tokenizer), questions.params.batch_size
    prompts = prompts_of(questions.params)
    planned = plan_batches(prompt_lengths(prompter, questions.records, questions.classes), size)
    general = [len(prompter.generation_prompt(question_of(prompt), False, None)) for prompt in prompts.values()]
    # Dealing goes on where the items end, so that the processes have as much to do.
    further = dict(enumerate(plan_batches(general, size), start=len(planned)))
    mine = {item for number, batch in further.items() if number % of == process for item in batch}
    names = [name for item, name in enumerate(prompts) if item in mine]
    return {number: planned[number] for number in range(process, len(planned), of)}, names


def together(parts: Sequence[Part], names: Sequence[str]) -> Answered:
    """The parts of all processes as one, in order; `names` are those of the general prompts."""
    answers = {item: one for part in parts for item, one in part.answers.items()}
    general = {name: line for part in parts for name, line in part.general.items()}
    speed = parts[0].speed if len(parts) == 1 else together_speed([part.speed["batches"] for part in parts])
    return Answered(
        [answers[item] for item in range(len(answers))], [general[name] for name in names], parts[0].device | speed
    )


def together_speed(batches: Sequence[dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """The time that counts is that of the process that took longest."""
    every = {number: batch for part in batches for number, batch in part.items()}
    seconds = max(sum(batch["seconds"] for batch in part.values()) for part in batches)
    tokens, items = (sum(batch[key] for batch in every.values()) for key in ("tokens", "items"))
    return {
        "processes": len(batches),
        "new_tokens_per_second": round(tokens / max(seconds, 0.01), 1),
        "seconds_per_item": round(seconds / items, 3),
        "batches": [every[number] for number in sorted(every)],
    }
