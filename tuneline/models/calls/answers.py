"""Reading of what a model has generated: its text with the tokens that mean something in it, and the calls it holds."""

import re
from collections.abc import Sequence
from typing import Any

from tuneline.models.calls.reading import Calling, read_calls
from tuneline.models.calls.rendered import template_syntax
from tuneline.models.calls.syntax import CHATGLM3, KNOWN, PYTHON_TAG, CallSyntax
from tuneline.models.chat_format import Prompter, Tools, as_list


class AnswerReader:
    """Reads answers of one base, by its tokenizer and its prompter."""

    def __init__(self, tokenizer: Any, prompter: Prompter) -> None:
        self.tokenizer = tokenizer
        syntaxes, ending = _syntaxes(prompter)
        self._unread = not syntaxes
        # Control tokens of thoughts are no text of an answer, and may stand in calls.
        marks = prompter.thought_marks.control
        self.syntaxes = list(dict.fromkeys([*syntaxes, *(syntax.without(marks) for syntax in syntaxes)]))
        special = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        pieces = "\n".join(piece for syntax in self.syntaxes for piece in syntax.pieces)
        self.of_calls = [name for name in special.values() if name.strip() and name in pieces]
        """Control tokens that are a part of calls: as text they stand for nothing else."""
        kept = {*self.of_calls, *prompter.thought_marks.control}
        self._keeps = bool(kept)
        self._skipped = {number for number, name in special.items() if name not in kept}
        number_of = tokenizer.backend_tokenizer.token_to_id
        self._turn = number_of("<|assistant|>") if prompter.name == "chatglm3" else None
        ends = number_of(ending)
        self.stop_ids = sorted({*prompter.stop_ids, *([] if ends is None else [ends])})
        """What ends an answer by the prompt, with calls or without."""

    def stops_of(self, network: Any) -> list[int]:
        """What ends an answer of a model: `stop_ids`, and what its generation_config.json has beside them."""
        return sorted({*self.stop_ids, *as_list(network.generation_config.eos_token_id)})

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, in which the marks of thoughts and calls are still to be seen."""
        if self._turn is not None and self._turn in ids:
            # A call after words is a turn of its own, and begins a line.
            place = list(ids).index(self._turn)
            return f"{self.decode(ids[:place])}\n{self.decode(ids[place + 1 :])}"
        if not self._keeps:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        kept = [number for number in ids if number not in self._skipped]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))

    def read(self, answer: str, tools: Tools | None, calls: bool = False) -> Calling:
        """Content and calls of an answer; without tools it is all text, unless it may have `calls` all the same.

        Raises ValueError as `check` does.
        """
        self.check(tools)
        return read_calls(answer, self.syntaxes, tools or ()) if tools or calls else Calling(self.plain(answer))

    def check(self, tools: Tools | None) -> None:
        """Raises ValueError for tools where no call could be read."""
        if tools and self._unread:
            raise ValueError(
                "the base's chat template writes calls in a form of its own, which can't be read in answers"
            )

    def plain(self, text: str) -> str:
        """Text without control tokens of calls."""
        return re.sub("|".join(map(re.escape, self.of_calls)), "", text) if self.of_calls else text


def _syntaxes(prompter: Prompter) -> tuple[Sequence[CallSyntax], str]:
    """(syntaxes that a base writes calls in, the token that ends such an answer)."""
    if prompter.name == "chatglm3":
        return [CHATGLM3], "<|observation|>"
    renderer = getattr(prompter, "renderer", None)
    found = template_syntax(renderer) if renderer else None
    if found is None:
        own = getattr(renderer, "tools", None)
        return ([] if own and own.shows_calls else KNOWN), ""
    syntax, ending = found
    return [syntax] if syntax.marker or syntax.kind != "object" else [syntax, PYTHON_TAG], ending
