"""Turns of user and assistant in alternation, with the system prompt apart, and an end that is learnt."""

from tuneline.data.turns.conversation import MARKED_BAD, RejectedRecordError
from tuneline.data.turns.tool_turns import check_calls, uses_tools
from tuneline.formats.records import Message, is_learnt


def split_system(messages: list[Message]) -> tuple[str, list[Message]]:
    """(system prompt, "" when there is none; the other messages). Raises RejectedRecordError for a late one."""
    rest = [message for message in messages if message["role"] != "system"]
    systems = [message["content"] for message in messages if message["role"] == "system"]
    if len(set(systems)) > 1 or (systems and messages[0]["role"] != "system"):
        raise RejectedRecordError("late_system_prompt")
    return (systems[0] if systems else ""), rest


def alternates(messages: list[Message]) -> bool:
    """Whether user and assistant take turns, the user first and the assistant last."""
    roles = [message["role"] for message in messages]
    return roles == ["user", "assistant"] * (len(roles) // 2)


def alternate(messages: list[Message], repairs: list[str]) -> list[Message]:
    """Messages of user and assistant in alternation, from the user's first to the assistant's last that is learnt.

    Between them stand calls, which are the assistant's, and what functions gave. Raises RejectedRecordError where no
    question, no answer, or nothing to learn is left, and where calls and what functions gave do not go together.
    """
    merged = _merge(messages, repairs)
    while merged and merged[0]["role"] != "user":
        repairs.append("dropped_opening_answer")
        del merged[0]
    while merged and merged[-1]["role"] != "assistant":
        if len(merged) == 1:
            raise RejectedRecordError("no_answer")
        repairs.append("dropped_last_question" if merged[-1]["role"] == "user" else "dropped_last_observation")
        del merged[-1]
    if not merged:
        raise RejectedRecordError("no_question")
    while merged and not is_learnt(merged[-1]):
        # An answer that is not to be learnt is needed only as the past of one that is.
        repairs.append("dropped_masked_end")
        del merged[-1]
        while merged and merged[-1]["role"] != "assistant":
            del merged[-1]
    if not merged:
        raise RejectedRecordError(MARKED_BAD)
    if uses_tools(merged):
        check_calls(merged)
    return merged


def _merge(messages: list[Message], repairs: list[str]) -> list[Message]:
    """Neighbours of one speaker as one message, which is learnt only where all of them are."""
    merged: list[Message] = []
    for message in messages:
        before = merged[-1] if merged else None
        if before is None or before["role"] != message["role"] or message["role"] == "tool":
            merged.append(message.copy())
            continue
        if "tool_calls" in before and "tool_calls" not in message:
            raise RejectedRecordError("call_without_observation")
        if "tool_calls" in message:
            # What is said before a call belongs to it, and calls one after the other are made at once.
            before["tool_calls"] = [*before.get("tool_calls", []), *message["tool_calls"]]
            before["content"] = "\n".join(filter(None, (before["content"], message["content"])))
        else:
            repairs.append("merged_turns")
            before["content"] += f"\n{message['content']}"
        if "reasoning" in message or ("reasoning" in before and "tool_calls" not in message):
            # Of two answers in one, thoughts would stand before both.
            repairs.append("dropped_reasoning")
            merged[-1].pop("reasoning", None)
        if message.get("learn") is False:
            merged[-1]["learn"] = False
    return merged
