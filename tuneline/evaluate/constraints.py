"""Constraints of held-out items, from `evaluate.constrain`: what the answer to each may hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.evaluate.config import TRAINING_SET, Evaluate
from tuneline.formats.extraction import TASKS, Classes
from tuneline.formats.records import Record, last_question
from tuneline.formats.stored import read_object

if TYPE_CHECKING:
    from tuneline.models.constrained_decoding import ItemConstraints

KEY = "evaluate.constrain"


def allowed_classes(params: Evaluate, training_classes: Path, records: Sequence[Record]) -> Classes:
    """Classes by task for the tasks of the records whose answers are constrained; none where answers are free.

    Raises ValueError where a task has no class, and where nothing of what is held out could be constrained.
    """
    if params.constrain is None:
        return {}
    tasks = {record["task"] for record in records} & set(TASKS)
    if params.constrain == TRAINING_SET:
        known: Classes = read_object(training_classes, {"*": list}, "convert")
        if missing := sorted(tasks - set(known)):
            raise ValueError(
                f"{KEY} is {TRAINING_SET} and no answer of the training set names a class of {', '.join(missing)}: "
                f"list them in params.yaml ({KEY}: {{{missing[0]}: [...]}}), or set it to null"
            )
    else:
        assert isinstance(params.constrain, dict)
        known = params.constrain
    if not tasks & set(known):
        raise ValueError(
            f"{KEY} is {params.constrain!r} and no held-out item is of such a task, expected one of "
            f"{', '.join(sorted(set(known) & set(TASKS) or TASKS))}: set it to null in params.yaml"
        )
    return {task: known[task] for task in sorted(tasks & set(known))}


def item_constraints(
    classes: Classes, tokenizer: Any, prompter: Any, records: Sequence[Record]
) -> "ItemConstraints | None":
    """None where every answer is free. Raises ValueError for a class that could not be read in an answer."""
    if not classes:
        return None
    from tuneline.models.constrained_decoding import Constrainer, Constraint, ItemConstraints, check_classes

    for task, names in classes.items():
        check_classes(task, names, KEY)
    constraints = [
        Constraint(record["task"], last_question(record), classes[record["task"]])
        if record["task"] in classes
        else None
        for record in records
    ]
    return ItemConstraints(Constrainer(tokenizer, prompter), constraints)


def generation_record(params: Evaluate, classes: Classes, answers: Sequence[Any]) -> dict[str, Any]:
    """Section `generation` of eval_details.json: how base and tuned model, both the same way, came to their answers."""
    record: dict[str, Any] = {
        "decoding": "greedy",
        "max_new_tokens": params.max_new_tokens,
        "constrain": classes or None,
    }
    # No span of the question, or a class that is not listed: no model could be right there.
    unreachable = sum(not answer["reachable"] for answer in answers)
    return record | ({"unreachable_references": unreachable} if classes else {})
