"""Metrics of tool calls: whether to call, which function, with which arguments, and whether the call can be run.

Calls of an answer are a multiset: their order is nothing, and the second call of a function is compared with the second one.
Arguments are equal as JSON values are, texts to the character. A call is readable when its syntax is the base's, and valid when
its function is defined and its arguments are what the definition's JSON Schema asks for.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tuneline.formats.calls import canonical
from tuneline.formats.records import ToolCall
from tuneline.scoring.counts import Counts

Row = dict[str, Any]
Counted = Callable[[Row, str], Counts]


def called(row: Row, side: str) -> Counts:
    """Whether it calls where the reference does, and answers where that does: one count an item."""
    calls = bool(row["calls"][side] or row["call_faults"][side])
    return {"": (int(calls == bool(row["calls"]["reference"])), 1, 1)}


def names(row: Row, side: str) -> Counts:
    """Whether the functions called are the right ones; of items where a call is wanted, or made."""
    right, found = (Counter(call["name"] for call in row["calls"][of]) for of in ("reference", side))
    return {"": (int(found == right), 1, 1)} if right or found else {}


def exact(row: Row, side: str) -> Counts:
    """Whether all calls are right, names and arguments, of items where a call is wanted, or made."""
    right, found, faults = elements(row, "reference"), elements(row, side), row["call_faults"][side]
    return {"": (int(found == right and not faults), 1, 1)} if right or found or faults else {}


def arguments(row: Row, side: str) -> Counts:
    """Arguments that are right, given, and wanted."""
    found, right = (Counter(part for part in elements(row, of) if len(part) > 2) for of in (side, "reference"))
    return {"": ((found & right).total(), found.total(), right.total())}


def functions(row: Row, side: str) -> Counts:
    """{function: (right calls of it, calls, wanted)}, by name."""
    found, right = (Counter(call["name"] for call in row["calls"][of]) for of in (side, "reference"))
    return {name: ((found & right)[name], found[name], right[name]) for name in sorted(found | right)}


def readable(row: Row, side: str) -> Counts:
    """Calls that can be read, of all that were begun."""
    begun = len(row["calls"][side]) + len(row["call_faults"][side])
    return {"": (len(row["calls"][side]), begun, begun)}


def valid(row: Row, side: str) -> Counts:
    """Calls that their definitions allow, of all that were begun."""
    begun = len(row["calls"][side]) + len(row["call_faults"][side])
    return {"": (begun - len(row["call_faults"][side]) - len(row["call_errors"][side]), begun, begun)}


CALL_COUNTERS: dict[str, Counted] = {
    "tools_exact_match": exact,
    "tools_call_accuracy": called,
    "tools_name_accuracy": names,
    "tools_arguments_f1": arguments,
    "tools_readable": readable,
    "tools_valid": valid,
}
"""By name of a metric in tuneline.formats.metrics."""


def elements(row: Row, side: str) -> Counter[tuple[str, ...]]:
    """What calls consist of: each call by its function and number, and each argument beside it."""
    parts: Counter[tuple[str, ...]] = Counter()
    seen: Counter[str] = Counter()
    for call in sorted(row["calls"][side], key=lambda call: call["name"]):
        name = call["name"]
        seen[name] += 1
        parts[name, str(seen[name])] += 1
        for key, value in call["arguments"].items():
            parts[name, str(seen[name]), key, canonical(value)] += 1
    return parts


def call_errors(calls: Sequence[ToolCall], tools: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each call that its definition does not allow."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    errors: list[str] = []
    # Without definitions there are none to be broken.
    for call in calls if schemas else ():
        if call["name"] not in schemas:
            errors.append(f"{call['name']} is no function, expected one of {', '.join(schemas)}")
            continue
        try:
            # Without a registry of its own it would fetch what a schema refers to.
            validator = Draft202012Validator(schemas[call["name"]], registry=Registry())
            found = next(validator.iter_errors(call["arguments"]), None)
        except Exception as error:
            errors.append(f"the definition of {call['name']} can't be checked: {type(error).__name__}")
            continue
        if found:
            errors.append(f"{call['name']}: {found.message[:200]}")
    return errors
