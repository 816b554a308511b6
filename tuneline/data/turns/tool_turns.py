"""Turns of tools: every call is answered by what its function gave, and only a call is."""

from collections.abc import Sequence
from itertools import groupby, pairwise

from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.formats.records import Message, calls_of


def uses_tools(messages: Sequence[Message]) -> bool:
    return any(message["role"] == "tool" or "tool_calls" in message for message in messages)


def check_calls(messages: Sequence[Message]) -> None:
    """Raises RejectedRecordError where calls and what functions gave do not go together.

    Several calls may have one answer. The last message may be a call, which nothing answers yet.
    """
    for message, following in pairwise(messages):
        calls, role = calls_of(message), following["role"]
        if calls and role != "tool":
            raise RejectedRecordError("call_without_observation")
        if role == "tool" and not calls and message["role"] != "tool":
            raise RejectedRecordError("observation_without_call")
        if message["role"] == "tool" and role == "user":
            raise RejectedRecordError("observation_without_answer")
    waiting = 0
    for is_tool, run in groupby(messages, key=lambda message: message["role"] == "tool"):
        own = list(run)
        if is_tool and len(own) > waiting:
            raise RejectedRecordError("observation_without_call")
        waiting = len(calls_of(own[-1]))
