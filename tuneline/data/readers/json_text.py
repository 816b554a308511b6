"""JSON that runs over lines: an array of records, one inside an object, records in a row, or one object keyed by id.

[{"instruction": "你好", "input": "", "output": "您好，请问有什么可以帮您？"}, …]
{"21645374": {"QUESTION": "Do mitochondria play a role…?", "CONTEXTS": ["…"], "LONG_ANSWER": "Results depicted…"}, …}
{"version": "1.0", "data": [{"question": "…", "answer": "…"}, …]}

The file is read in blocks. A record that is broken costs itself only: reading goes on where the next one begins.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from tuneline.data.fields.json_members import ARRAY, KEY, SEPARATORS, array_of_records, members_end, skip_separators
from tuneline.data.fields.names import is_field, is_record, mentions_field
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import HEAD, MAX_RECORD

COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
START = re.compile(r'\{\s*"(?:[^"\\\n]|\\.)*"\s*:')
ENTRY = re.compile(r'"(?:[^"\\\n]|\\.)*"\s*:\s*(?=\{)')
PROBED = 20
"""Records that are looked at where the shape is unknown."""
PARTIAL = ("Unterminated string", "Invalid \\")
"""Errors of the decoder that may only mean that the block ends here."""
_decoder = json.JSONDecoder(strict=False)


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format; `named` are the fields that the user names."""
    window = _Window.of(head)
    layout = window.layout()
    if layout is None:
        return False
    broken = False
    for record in window.raw_records(layout):
        if record.reason is None:
            return is_record(parse(record.text), named) or (broken and mentions_field(head))
        broken = True
    # Nothing whole in sight: a first record longer than the head, or broken.
    return mentions_field(head)


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    """Raises ValueError for a text that does not begin as JSON, where the user named this format."""
    window = _Window(file)
    layout = window.layout()
    if layout is None:
        raise ValueError(
            f"{file.name} begins {window.text[:40]!r}, expected an array or objects: format json does not fit"
        )
    return window.raw_records(layout)


def raw_records_of(head: str) -> list[RawRecord]:
    """The records in sight of a text that may be no JSON."""
    window = _Window.of(head)
    layout = window.layout()
    return list(islice(window.raw_records(layout), PROBED)) if layout else []


def parse(text: str) -> Any:
    """The value of a record. Raises ValueError for anything that is no JSON."""
    return _decoder.decode(text)


class _Window:
    """The growing, sliding part of a text that is in memory."""

    def __init__(self, file: TextIO | None) -> None:
        self.file = file
        self.text, self.at = "", 0
        self.field_sets: set[frozenset[str]] = set()
        """Fields of the records so far: by them the next record is recognised after a broken one."""
        self.indent: str | None = None
        """White space before the present record on its line, None when it begins no line."""

    @classmethod
    def of(cls, head: str) -> "_Window":
        window = cls(None)
        window.text = head
        return window

    def read_more(self) -> bool:
        """Read another block; False at the end."""
        block = self.file.read(HEAD) if self.file else ""
        self.text, self.at = self.text[self.at :] + block, 0
        return bool(block)

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Step over what matches here, across blocks."""
        passed = ""
        while match := pattern.match(self.text, self.at):
            passed += match.group()
            self.at = match.end()
            if self.at < len(self.text) or not self.read_more():
                break
        return passed

    def peek(self) -> str:
        """The next character, "" at the end."""
        if self.at >= len(self.text):
            self.read_more()
        return self.text[self.at : self.at + 1]

    def layout(self) -> str | None:
        """What follows: "array", "wrapped", "records" or "keyed"; None when it is no JSON."""
        self.skip(SEPARATORS)
        while self.peek() == "/":
            self.skip(COMMENT)
            self.skip(SEPARATORS)
        if self.peek() == "[":
            # Prose in Markdown begins with a bracket, too.
            return "array" if ARRAY.match(self.text, self.at) else None
        if self.peek() != "{":
            return None
        if (begin := array_of_records(self.text, self.at + 1)) >= 0:
            self.at = begin
            return "wrapped"
        key = KEY.match(self.text, self.at + 1)
        if key and self.text[key.end() : key.end() + 1] == "{" and not is_field(json.loads(key.group(1))):
            return "keyed"
        return "records"

    def raw_records(self, layout: str) -> Iterator[RawRecord]:
        index = 0
        if layout != "records":
            self.at += 1
        while True:
            passed = self.skip(SEPARATORS)
            begins_line, _, indent = passed.rpartition("\n")
            self.indent = indent if begins_line or passed.startswith("\n") else None
            character = self.peek()
            if not character:
                return
            if character == "/" and (comment := self.skip(COMMENT)):
                yield RawRecord(f"[{index}]", comment, "comment")
            elif character in "]}" and layout != "records":
                self.at += 1
                if layout == "wrapped" and self._next_array():
                    continue
                self.skip(SEPARATORS)
                if not self.peek():
                    return
                if self.peek() == ("[" if layout == "array" else "{"):
                    # Files that were put one after the other: the next one begins.
                    self.at += 1
                    continue
                if self.peek() in '{"]}':
                    yield RawRecord(f"[{index}]", character, "stray_bracket")
                else:
                    start = START if layout == "array" else ENTRY
                    yield self._broken_record(f"[{index}]", start, self.at, "text_after_the_end")
            else:
                yield self._keyed(index) if layout == "keyed" else self._record(f"[{index}]", self.at)
            index += 1

    def _next_array(self) -> bool:
        """Whether the object around an array goes on to another one, or ends; steps to what follows."""
        while len(self.text) - self.at < MAX_RECORD and self.read_more():
            pass
        members = skip_separators(self.text, self.at)
        if (begin := array_of_records(self.text, members)) >= 0:
            self.at = begin + 1
            return True
        end = members_end(self.text, members)
        self.at = end + 1 if self.text[end : end + 1] == "}" else end
        return False

    def _keyed(self, index: int) -> RawRecord:
        while not (key := KEY.match(self.text, self.at)) and len(self.text) - self.at < MAX_RECORD and self.read_more():
            pass
        if not key:
            return self._broken_record(f"[{index}]", ENTRY, self.at)
        begin = key.end() - self.at
        return self._record(f"[{key.group(1)}]", self.at + begin, ENTRY)

    def _record(self, place: str, begin: int, start: re.Pattern[str] = START) -> RawRecord:
        """The value that begins at `begin`; the window may move, so it is held as a distance."""
        ahead = begin - self.at
        while True:
            begin = self.at + ahead
            try:
                value, end = _decoder.raw_decode(self.text, begin)
            except (ValueError, RecursionError) as error:
                near_end = getattr(error, "pos", 0) >= len(self.text) - 16
                partial = near_end or str(error).startswith(PARTIAL)
                if partial and len(self.text) - self.at < MAX_RECORD and self.read_more():
                    continue
                return self._broken_record(place, start, begin)
            # A number may go on in the next block.
            if end == len(self.text) and self.read_more():
                continue
            if isinstance(value, dict):
                self.field_sets.add(frozenset(value))
            text = self.text[self.at + ahead : end]
            self.at = end
            return RawRecord(place, text)

    def _broken_record(self, place: str, start: re.Pattern[str], begin: int, reason: str = "broken_json") -> RawRecord:
        """What lies before the next record's beginning."""
        ahead = begin + 1 - self.at
        while True:
            for match in start.finditer(self.text, self.at + ahead):
                if self._begins_record(match, start):
                    text = self.text[self.at : match.start()]
                    self.at = match.start()
                    return RawRecord(place, text, reason)
            if len(self.text) - self.at >= MAX_RECORD or not self.read_more():
                text = self.text[self.at :]
                self.at = len(self.text)
                return RawRecord(place, text, reason)

    def _begins_record(self, match: re.Match[str], start: re.Pattern[str]) -> bool:
        """Whether a record begins here, and not an object inside the broken one.

        Where records begin lines, it must begin one, as far in as the broken one does. Else it must follow a
        comma or a bracket, and have the fields of a record that was whole.
        """
        before = self.text[max(self.at, match.start() - 200) : match.start()]
        _, line_end, indent = before.rpartition("\n")
        if self.indent is not None:
            return bool(line_end) and indent == self.indent
        if before.rstrip()[-1:] not in (",", "}", "]") or before.rstrip().endswith(("[,", "{,")):
            return False
        try:
            value, _ = _decoder.raw_decode(self.text, match.end() if start is ENTRY else match.start())
        except (ValueError, RecursionError):
            # Broken as well, or cut off by the end of the window: its first field must do.
            key = KEY.match(self.text, match.start() + 1)
            if start is ENTRY or key is None:
                return False
            name = json.loads(key.group(1))
            return any(name in fields for fields in self.field_sets) if self.field_sets else is_field(name)
        if not isinstance(value, dict):
            return False
        return frozenset(value) in self.field_sets if self.field_sets else is_record(value)
