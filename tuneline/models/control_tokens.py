"""Control tokens: tokenizers in which no text of a person becomes one (transformers#29279)."""

import re
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from tuneline.formats.records import Message
from tuneline.models.template_render import TemplateRenderer
from tuneline.models.template_tool_use.support import ANSWERED, ASKED, CALLED, GIVEN

OF_TEXT = re.compile(r"think|thought|reason|tool|function|arg_", re.IGNORECASE)
"""Added tokens that are written by a model itself, in an answer."""
OF_THOUGHTS = re.compile(r"think|thought|reason", re.IGNORECASE)
OF_RESULTS = re.compile("tool.?(?:response|output|result)", re.IGNORECASE)
PROBED = ("system", "user", "assistant", "user")


def without_control_tokens(tokenizer: Any, control: Collection[str] = ()) -> Any:
    """The same tokenizer, knowing added tokens only where they are white space, or neither special nor in `control`."""
    return _with_added_tokens(
        tokenizer,
        lambda added: [
            token
            for token in added
            if not token["content"].strip() or not (token["special"] or token["content"] in control)
        ],
    )


def control_names(tokenizer: Any, renderer: TemplateRenderer) -> list[str]:
    """Names of the tokens that no text may become: the special ones, and what the template begins and ends turns with."""
    messages: list[Message] = [{"role": role, "content": "x"} for role in PROBED]  # type: ignore[typeddict-item]
    messages = renderer.arranged(messages)
    written = renderer.render(messages) + renderer.render(messages, True, True) + renderer.render(messages, True, False)
    given = _around_observations(renderer)
    return [
        name
        for token in tokenizer.added_tokens_decoder.values()
        if (name := str(token)).strip()
        and (
            token.special
            or (name in written and not OF_TEXT.search(name))
            or (name in given and not OF_THOUGHTS.search(name))
        )
    ]


def _around_observations(renderer: TemplateRenderer) -> set[str]:
    """Added tokens that the template writes only where a function has given something, or that are called so."""
    if not renderer.tools.shows_calls:
        return set()
    whole = renderer.render([ASKED, CALLED, GIVEN, ANSWERED])
    try:
        without = renderer.render([ASKED, CALLED]) + renderer.render([ASKED, ANSWERED])
    except ValueError:
        return set()
    names = map(str, renderer.tokenizer.added_tokens_decoder.values())
    return {name for name in names if name in whole and (name not in without or OF_RESULTS.search(name))}


class SpelledTokenizer:
    """A tokenizer that knows each control token by a random spelling of its own, and no longer by its name.

    A whole conversation is one text for it, so that ids come out as the base's own tokenizer gives them, neighbours of
    control tokens and white space included; and what a person wrote becomes no control token, since the spelling is
    random. What a tokenizer has added without calling it special (`<think>`) stays a token of ordinary text.
    """

    def __init__(self, tokenizer: Any, names: Collection[str]) -> None:
        """`names` are those of the control tokens. Raises ValueError when ordinary text can become one."""
        known = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        secret = secrets.token_hex(16)
        self._guards = {name: f"{secret}g{known[name]}g" for name in names}
        self._guarded = {guard: name for name, guard in self._guards.items()}
        self._guard_pattern = re.compile(f"{secret}g[0-9]+g")
        self._spellings = {name: f"<{secret}-{known[name]}>" for name in names}
        self.known_names = names
        self._pattern = _pattern(names)
        self._spelled = re.compile(f"<{secret}-[0-9]+>")
        self.cut = f"<{secret}-cut>"
        """A token of nothing: what follows it is encoded apart from what stands before it."""
        self._backend = _with_added_tokens(tokenizer, self._spell_added)
        number_of = self._backend.token_to_id
        self._number = {number_of(self._spellings.get(name, name)): number for name, number in known.items()}
        unknown = getattr(tokenizer.backend_tokenizer.model, "unk_token", None)
        self.control = {known[name] for name in names if name != unknown}
        """Ids of the control tokens; characters that the tokenizer does not know become one that is none of them."""
        self._moved = any(here != number for here, number in self._number.items())
        self._leads: dict[str, list[int]] = {}
        self._spelled_texts: dict[str, str] = {}
        for name, ids in zip(names, self.encode(list(names)), strict=True):
            if self.control & set(ids):
                raise ValueError(
                    f"the base's tokenizer makes its control token {name!r} out of ordinary text too, so that text could "
                    "forge a turn; expected a tokenizer that keeps it apart"
                )

    def _spell_added(self, added: list[dict[str, Any]]) -> list[dict[str, Any]]:
        spelled = [token | {"content": self._spellings.get(token["content"], token["content"])} for token in added]
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return [*spelled, {"id": 1 + max(token["id"] for token in added), "content": self.cut, "special": True} | plain]

    def spell(self, text: str, remember: bool = True) -> str:
        """Text of a template with its control tokens as this tokenizer knows them; the few that there are, are remembered."""
        if (spelled := self._spelled_texts.get(text)) is None:
            spelled = self._pattern.sub(lambda found: self._spellings[found[0]], text)
            spelled = self._guard_pattern.sub(lambda found: self._guarded[found[0]], spelled)
            if remember:
                if len(self._spelled_texts) > 2000:
                    self._spelled_texts.clear()
                self._spelled_texts[text] = spelled
        return spelled

    def guarded(self, value: Any) -> Any:
        """A value of JSON with control tokens in its texts written otherwise, for `spell` to leave what is guarded text."""
        if isinstance(value, str):
            return self._pattern.sub(lambda found: self._guards[found[0]], value)
        if isinstance(value, list):
            return [self.guarded(inner) for inner in value]
        if isinstance(value, dict):
            return {self.guarded(name): self.guarded(inner) for name, inner in value.items()}
        return value

    def names(self, text: str) -> list[str]:
        """Control tokens of a template's text, by their names."""
        return self._pattern.findall(text)

    def after_controls(self, text: str) -> str:
        """What follows the last control token of a template's text."""
        return self._pattern.split(text)[-1]

    def from_last_control(self, text: str) -> str:
        """The last control token of a template's text with what follows it; the whole text where there is none."""
        places = [found.start() for found in self._pattern.finditer(text)]
        return text[places[-1] :] if places else text

    def first_control(self, text: str, start: int, end: int) -> int | None:
        """Where the first control token of text[start:end], by its name, ends."""
        found = self._pattern.search(text, start, end)
        return found.end() if found else None

    def inside_control(self, text: str, place: int) -> int | None:
        """Where the control token begins that `place` is inside of."""
        return next((m.start() for m in self._pattern.finditer(text) if m.start() < place < m.end()), None)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of spelled texts, by the numbers of the base's own tokenizer."""
        return [
            self._ids(encoding.ids) for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def encode_after(self, token: str, text: str) -> list[int]:
        """Ids of a spelled text that follows a spelled control token, or `cut`."""
        found = self._leads.get(token + text)
        if found is None:
            found = self._ids(self._backend.encode(token + text, add_special_tokens=False).ids[1:])
            if len(self._leads) < 1000:
                self._leads[token + text] = found
        return found

    def controls(self, spelled: str) -> list[tuple[int, int]]:
        """Begin and end of each control token in a spelled text."""
        return [found.span() for found in self._spelled.finditer(spelled)]

    def _ids(self, ids: list[int]) -> list[int]:
        return [self._number.get(number, number) for number in ids] if self._moved else ids


def _pattern(names: Collection[str]) -> re.Pattern[str]:
    """Any of the names, the longest first; thousands of them are tried only where one can begin."""
    if not names:
        return re.compile(r"(?!)")
    first = "".join(map(re.escape, sorted({name[0] for name in names})))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})")


def knows(tokenizer: Any, token: str) -> bool:
    """Whether a tokenizer has the token; its whole vocabulary as a dictionary would take a quarter of a second each time."""
    return tokenizer.backend_tokenizer.token_to_id(token) is not None


def _with_added_tokens(tokenizer: Any, change: Any) -> Any:
    """The tokenizer's backend with another list of added tokens, and without truncation and padding.

    Some checkpoints save these as they were last used; here they would cut answers. Both share the model, which is never
    changed: to write it down and read it again takes seconds for the default base.
    """
    from tokenizers import AddedToken, Tokenizer

    backend = tokenizer.backend_tokenizer
    changed = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (own := getattr(backend, part)) is not None:
            setattr(changed, part, own)
    known = sorted(backend.get_added_tokens_decoder().items())
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    added = change([{"id": number} | {name: getattr(token, name) for name in fields} for number, token in known])
    # By their content alone, as a tokenizer that is read from a file gets them: it numbers them itself.
    changed.add_tokens([AddedToken(**{name: token[name] for name in fields}) for token in added])
    return changed
