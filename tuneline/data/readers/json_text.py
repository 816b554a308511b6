"""JSON that runs over lines: an array of records, records one after the other, or one object keyed by id.

[{"instruction": "你好", "input": "", "output": "您好，请问有什么可以帮您？"}, …]
{"21645374": {"QUESTION": "Do mitochondria play a role…?", "CONTEXTS": ["…"], "LONG_ANSWER": "Results depicted…"}, …}

The file is read in blocks. A record that is broken costs itself only: reading goes on where the next one begins.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from tuneline.data.readers import shapes
from tuneline.data.readers.text import HEAD, LONGEST, Piece

SEPARATORS = re.compile(r"[\s,]*")
COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
ARRAY = re.compile(r'\[\s*(?:$|[\[{"\]]|//)')
KEY = re.compile(r'\s*("(?:[^"\\]|\\.)*")\s*:\s*')
START = re.compile(r'\{\s*"(?:[^"\\\n]|\\.)*"\s*:')
ENTRY = re.compile(r'"(?:[^"\\\n]|\\.)*"\s*:\s*(?=\{)')
PARTIAL = ("Unterminated string", "Invalid \\")
"""Complaints of the decoder that may only mean that the block ends here."""
_decoder = json.JSONDecoder(strict=False)


def claims(head: str) -> bool:
    text = _Text.of(head)
    kind = text.kind()
    if kind is None:
        return False
    broken = False
    for piece in text.pieces(kind):
        if piece.reason is None:
            return shapes.understood(parse(piece.raw)) or (broken and shapes.mentioned(head))
        broken = True
    # Nothing whole in sight: a first record longer than the head, or broken.
    return shapes.mentioned(head)


def pieces(file: TextIO) -> Iterator[Piece]:
    """Raises ValueError for a text that does not begin as JSON, when the user has said that it is."""
    text = _Text(file)
    kind = text.kind()
    if kind is None:
        raise ValueError(
            f"{file.name} begins {text.window[:40]!r}, expected an array or objects: format json does not fit"
        )
    return text.pieces(kind)


def parse(raw: str) -> Any:
    """Raises ValueError for anything that is no JSON."""
    return json.loads(raw, strict=False)


class _Text:
    """A text of which a growing, sliding window is in memory."""

    def __init__(self, file: TextIO | None) -> None:
        self.file = file
        self.window, self.at = "", 0
        self.shapes: set[frozenset[str]] = set()
        """Fields of the records so far: by them the next record is told after a broken one."""
        self.indent: str | None = None
        """White space before the present record on its line, None when it begins no line."""

    @classmethod
    def of(cls, head: str) -> "_Text":
        text = cls(None)
        text.window = head
        return text

    def more(self) -> bool:
        """Read another block; False at the end."""
        block = self.file.read(HEAD) if self.file else ""
        self.window, self.at = self.window[self.at :] + block, 0
        return bool(block)

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Step over what matches here, across blocks."""
        passed = ""
        while match := pattern.match(self.window, self.at):
            passed += match.group()
            self.at = match.end()
            if self.at < len(self.window) or not self.more():
                break
        return passed

    def here(self) -> str:
        if self.at >= len(self.window):
            self.more()
        return self.window[self.at : self.at + 1]

    def kind(self) -> str | None:
        """What follows: "array", "records" or "keyed"; None when it is no JSON."""
        self.skip(SEPARATORS)
        while self.here() == "/":
            self.skip(COMMENT)
            self.skip(SEPARATORS)
        if self.here() == "[":
            # Prose in Markdown begins with a bracket, too.
            return "array" if ARRAY.match(self.window, self.at) else None
        if self.here() != "{":
            return None
        key = KEY.match(self.window, self.at + 1)
        if key and self.window[key.end() : key.end() + 1] == "{" and not shapes.is_field(json.loads(key.group(1))):
            return "keyed"
        return "records"

    def pieces(self, kind: str) -> Iterator[Piece]:
        index = 0
        if kind != "records":
            self.at += 1
        while True:
            passed = self.skip(SEPARATORS)
            begins_line, _, indent = passed.rpartition("\n")
            self.indent = indent if begins_line or passed.startswith("\n") else None
            character = self.here()
            if not character:
                return
            if character == "/" and (comment := self.skip(COMMENT)):
                yield Piece(f"[{index}]", comment, "comment")
            elif character in "]}" and kind != "records":
                self.at += 1
                self.skip(SEPARATORS)
                if not self.here():
                    return
                if self.here() == ("[" if kind == "array" else "{"):
                    # Files that were put one after the other: the next one begins.
                    self.at += 1
                    continue
                if self.here() in '{"]}':
                    yield Piece(f"[{index}]", character, "stray_bracket")
                else:
                    yield self._broken(f"[{index}]", START if kind == "array" else ENTRY, self.at, "text_after_the_end")
            else:
                yield self._keyed(index) if kind == "keyed" else self._record(f"[{index}]", self.at)
            index += 1

    def _keyed(self, index: int) -> Piece:
        while not (key := KEY.match(self.window, self.at)) and len(self.window) - self.at < LONGEST and self.more():
            pass
        if not key:
            return self._broken(f"[{index}]", ENTRY, self.at)
        begin = key.end() - self.at
        return self._record(f"[{key.group(1)}]", self.at + begin, ENTRY)

    def _record(self, place: str, begin: int, start: re.Pattern[str] = START) -> Piece:
        """The value that begins at `begin`; the window may move, so it is held as a distance."""
        ahead = begin - self.at
        while True:
            begin = self.at + ahead
            try:
                value, end = _decoder.raw_decode(self.window, begin)
            except (ValueError, RecursionError) as error:
                near_end = getattr(error, "pos", 0) >= len(self.window) - 16
                partial = near_end or str(error).startswith(PARTIAL)
                if partial and len(self.window) - self.at < LONGEST and self.more():
                    continue
                return self._broken(place, start, begin)
            # A number may go on in the next block.
            if end == len(self.window) and self.more():
                continue
            if isinstance(value, dict):
                self.shapes.add(frozenset(value))
            raw = self.window[self.at + ahead : end]
            self.at = end
            return Piece(place, raw)

    def _broken(self, place: str, start: re.Pattern[str], begin: int, reason: str = "broken_json") -> Piece:
        """What lies before the next record's beginning."""
        ahead = begin + 1 - self.at
        while True:
            for match in start.finditer(self.window, self.at + ahead):
                if self._begins_record(match, start):
                    raw = self.window[self.at : match.start()]
                    self.at = match.start()
                    return Piece(place, raw, reason)
            if len(self.window) - self.at >= LONGEST or not self.more():
                raw = self.window[self.at :]
                self.at = len(self.window)
                return Piece(place, raw, reason)

    def _begins_record(self, match: re.Match[str], start: re.Pattern[str]) -> bool:
        """Whether a record begins here, and not an object inside the broken one.

        Where records begin lines, it must begin one, as far in as the broken one does. Else it must follow a
        comma or a bracket, and have the fields of a record that was whole.
        """
        before = self.window[max(self.at, match.start() - 200) : match.start()]
        _, broke, indent = before.rpartition("\n")
        if self.indent is not None:
            return bool(broke) and indent == self.indent
        if before.rstrip()[-1:] not in (",", "}", "]") or before.rstrip().endswith(("[,", "{,")):
            return False
        try:
            value, _ = _decoder.raw_decode(self.window, match.end() if start is ENTRY else match.start())
        except (ValueError, RecursionError):
            # Broken as well, or cut off by the end of the window: its first field must do.
            key = KEY.match(self.window, match.start() + 1)
            if start is ENTRY or key is None:
                return False
            name = json.loads(key.group(1))
            return any(name in shape for shape in self.shapes) if self.shapes else shapes.is_field(name)
        if not isinstance(value, dict):
            return False
        return frozenset(value) in self.shapes if self.shapes else shapes.understood(value)
