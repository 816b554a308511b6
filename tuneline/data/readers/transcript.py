"""Dialogues as text, each turn after the name of its speaker: one to a file, or several, told apart.

来访者：您好，我是来咨询的，咱们可以谈谈我的问题吗？

心理咨询师：当然可以，请您简单描述一下您当前遇到的问题。

Lines without a speaker belong to the turn before them. "[客户] " and "[律师] " begin turns as well, and so do "问：" and
"答：", "Q:" and "A:", "<B>:" and "<A>:". A new dialogue begins after a line of dashes or a title ("对话 2"), where the rounds
("<Round 1>") begin anew, after a blank line where several exchanges stand together without one, and else, in text of
questions and answers, at every question.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TextIO

from tuneline.data.fields.names import ROLES
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import HEAD, read_lines, read_whole

_ASKED = ("问", "提问", "问题", "question", "q")
_ANSWERED = ("答", "回答", "答案", "answer", "a")
_DIRECTION = r"(?:（[^）\n]*）|\([^)\n]*\))?"
_ROLE_NAMES = "|".join(sorted(ROLES, key=len, reverse=True))
SPEAKERS = (
    re.compile(
        rf"^[ \t]*(?:\[({_ROLE_NAMES})\][ \t]*[：:]?|<({_ROLE_NAMES})>[ \t]*[：:]|({_ROLE_NAMES})({_DIRECTION})[：:])",
        re.IGNORECASE,
    ),
    re.compile(r"^[ \t]*\**(?:\[(问|答)\]|【(问|答)】|(提问|回答|问题|答案|问|答)(\d*)\**[：:])\**"),
    re.compile(r"^[ \t]*\**(?:\[(Q|A)\]|<(Q|A)>|(Question|Answer|Q|A)(\d*)\**[：:])\**", re.IGNORECASE),
    re.compile(r"^[ \t]*<([AB])>[ \t]*[：:]()()()"),
)  # fmt: skip
"""Of speakers by their role, of questions and answers in Chinese and English, and of two that have letters only. What
stands in brackets after a name is a stage direction, and stays in the text."""
_TITLE = re.compile(
    r"^\s*(?:[-=*#_~—]{3,}|(?:对话|会话|案例|dialogue|dialog|conversation|session|case)\s*[:：#]?\s*\d+\s*[:：]?"
    r"|第\s*[\d一二三四五六七八九十]+\s*(?:段|个|组|则)?\s*(?:对话|会话|案例)\s*[:：]?)\s*$",
    re.IGNORECASE,
)
_ROUND = re.compile(r"^\s*[<\[【]?\s*(?:round\s*(\d+)|第\s*(\d+)\s*[轮回])[^\S\n]*[>\]】]?[:：]?\s*$", re.IGNORECASE)


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format."""
    lines = [line for line in head.splitlines() if line.strip()]
    while lines and (_TITLE.match(lines[0]) or _ROUND.match(lines[0])):
        lines.pop(0)
    style = _style(lines[:1])
    if style is None:
        return False
    names = {_speaker(match).lower() for line in lines if (match := style.match(line))}
    return style is SPEAKERS[0] or len(names) > 1


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    """One raw record a dialogue, at its first line."""
    probe = file.read(HEAD)
    file.seek(0)
    begins = _boundary([line.rstrip("\r") for line in probe.split("\n")])
    if begins is None:
        yield read_whole(file)
        return
    block: list[RawRecord] = []
    filled = False
    for line in read_lines(file):
        if line.reason:
            yield line
            continue
        if filled and begins(line.text.rstrip("\r\n"), block[-1].text):
            yield _joined(block)
            block, filled = [], False
        block.append(line)
        filled = filled or _has_text(line)
    if filled:
        yield _joined(block)


def parse(text: str) -> dict[str, Any]:
    """{"conversation": messages}, and as "preface" what stands before the first speaker."""
    messages, preface = turns(text)
    return {"conversation": messages} | ({"preface": preface} if preface else {})


def turns(text: str) -> tuple[list[dict[str, str]], str]:
    """(messages, text before the first speaker); no message where no line names one."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if not (_ROUND.match(line) or _TITLE.match(line))]
    style = _style(lines)
    messages: list[dict[str, str]] = []
    preface = []
    first = ""
    for line in lines:
        if style and (match := style.match(line)):
            first = first or _speaker(match).lower()
            direction = (match.group(4) or "") if style is SPEAKERS[0] else ""
            messages.append({"role": _role(match, style, first), "content": direction + line[match.end() :]})
        elif messages:
            messages[-1]["content"] += "\n" + line
        else:
            preface.append(line)
    for message in messages:
        message["content"] = message["content"].strip()
    return messages, "\n".join(preface).strip()


def is_spoken(lines: Any) -> bool:
    """Whether a list holds a dialogue as lines, each of which names its speaker."""
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        return False
    style = _style(lines[:1])
    return style is not None and all(style.match(line) or not line.strip() for line in lines)


def _style(lines: list[str]) -> re.Pattern[str] | None:
    """How the first line that names a speaker names it."""
    return next((style for line in lines for style in SPEAKERS if style.match(line)), None)


def _speaker(match: re.Match[str]) -> str:
    return next(name for name in match.groups() if name)


def _role(match: re.Match[str], style: re.Pattern[str], first: str) -> str:
    name = _speaker(match).lower()
    if style is SPEAKERS[0]:
        return name
    if style is SPEAKERS[3]:
        # Nothing says who asks: it is who begins.
        return "user" if not first or name == first else "assistant"
    return "user" if name in _ASKED else "assistant"


def _asks(line: str, style: re.Pattern[str]) -> bool | None:
    """Whether a line begins a question; None for one that begins no turn."""
    match = style.match(line)
    if not match:
        return None
    role = _role(match, style, "")
    return ROLES.get(role, role) == "user"


def _boundary(lines: list[str]) -> Callable[[str, str], bool] | None:
    """Whether a new dialogue begins at a line, from it and the line before; None when the text is one dialogue."""
    style = _style(lines)
    if style is None:
        return None
    if any(map(_TITLE.match, lines)):
        return lambda line, before: _TITLE.match(line) is not None
    rounds = [number for line in lines if (number := _round_number(line))]
    if rounds:
        return (lambda line, before: _round_number(line) == rounds[0]) if rounds.count(rounds[0]) > 1 else None
    if style is SPEAKERS[3]:
        return None
    pairs = [(before, _asks(line, style)) for before, line in pairwise(lines)]
    after_blank = [asks for before, asks in pairs if not before.strip() and asks is not None]
    together = any(asks and before.strip() for before, asks in pairs)
    if after_blank and all(after_blank) and together:
        return lambda line, before: bool(_asks(line, style)) and not before.strip()
    return None if style is SPEAKERS[0] else lambda line, before: bool(_asks(line, style))


def _round_number(line: str) -> str:
    match = _ROUND.match(line)
    return (match.group(1) or match.group(2)) if match else ""


def _has_text(line: RawRecord) -> bool:
    return bool(line.text.strip()) and not _TITLE.match(line.text)


def _joined(block: list[RawRecord]) -> RawRecord:
    place = next(line.place for line in block if _has_text(line))
    return RawRecord(place, "".join(line.text for line in block).strip("\r\n"))
