"""Tools in texts: system prompts that list them, and glaive's dialogues, which are one text each.

"You may call … <tools>[{"name": …}]</tools> For each function call return …"
"SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\\n{\\n "name": …}"
"USER: …\\n\\n\\nASSISTANT: <functioncall> {…} <|endoftext|>\\n\\n\\nFUNCTION RESPONSE: {…}\\n\\n\\nASSISTANT: …"
"""

import re
from typing import Any

from tuneline.data.tools.definitions import definitions_of
from tuneline.data.turns.conversation import RejectedRecordError

_TAGGED = re.compile(r"<tools>\s*([\[{].*?)\s*</tools>", re.DOTALL)
_HEADING = re.compile(r"(?:\A|\n)[ \t]*#+[ \t]*(?:Tools|工具)[ \t]*\n")
_END = re.compile(r".*</tool_call>", re.DOTALL)
_GLAIVE = re.compile(r"\ASYSTEM:\s*")
_FUNCTIONS = re.compile(r"[^\n.]*\bfollowing functions\b[^\n]*\n\s*(?=\{)")
_SPEAKER = re.compile(r"^[ \t]*(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]?", re.MULTILINE)
_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
TOOLS_FROM_SYSTEM = "tools_from_system"
"""Name of system prompts from which tools are taken, with what is said of how to call them."""


def tools_in_system(system: str, glaives: bool = False) -> tuple[str, list[dict[str, Any]]]:
    """(system prompt without its list of tools and what is said of calling them, the tools); `glaives` is one of glaive's.

    The base's own template says both in its own words. A list that can't be read stays text.
    """
    if match := _TAGGED.search(system):
        # Hermes names the tags in the sentence before the list.
        begin = system.index("<tools>")
        heading = next((found for found in _HEADING.finditer(system) if found.start() < begin), None)
        before = system[: heading.start()] if heading else system[:begin].rpartition("\n\n")[0]
        after = _END.sub("", system[match.end() :], count=1)
        return _read(system, match[1], f"{before.rstrip()}\n\n{after.strip()}".strip())
    if not glaives:
        return system, []
    glaive = _GLAIVE.sub("", system)
    if "following functions" in glaive and (match := _FUNCTIONS.search(glaive)):
        return _read(glaive, glaive[match.end() :], glaive[: match.start()].strip())
    return glaive, []


def glaive_turns(text: str) -> list[dict[str, str]]:
    """The messages of a dialogue of glaive's; none where a text is no such one."""
    found = list(_SPEAKER.finditer(text))
    names = {match[1] for match in found}
    if "USER" not in names or not ("FUNCTION RESPONSE" in names or "<functioncall>" in text or "<|endoftext|>" in text):
        return []
    if text[: found[0].start()].strip():
        return []
    ends = [*(match.start() for match in found[1:]), len(text)]
    return [
        {"role": _ROLES[match[1]], "content": text[match.end() : end].replace("<|endoftext|>", "").strip()}
        for match, end in zip(found, ends, strict=True)
    ]


def _read(system: str, listed: str, rest: str) -> tuple[str, list[dict[str, Any]]]:
    try:
        tools = definitions_of(listed)
    except RejectedRecordError:
        return system, []
    return (rest, tools) if tools else (system, [])
