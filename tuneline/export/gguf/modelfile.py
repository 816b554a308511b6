"""Ollama's Modelfile of a GGUF file: the chat template in Go's language, stop words, and parameters of plain greedy answers.

Ollama knows some templates by their Jinja text and takes its own in their place; it samples, and punishes repetition.
Source: ollama/docs/modelfile.md and docs/template.md.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

Chat = Sequence[tuple[str, str]]
"""(role, content) of each message."""
Render = Callable[[Chat, bool], str]
"""The chat template: a conversation, and whether an answer is asked for, to text."""
SYSTEM, ASKED, SAID, THEN = (f"Qx{number}xQ" for number in range(4))
LONGEST = 8192
"""Tokens of context, each of which takes memory from the start."""


class Turns(NamedTuple):
    """Texts that a chat template writes around contents."""

    head: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    ask: str
    """What an answer follows."""
    folds_system: bool
    """Whether a system prompt is written into the first question."""
    default_system: str | None = None
    """What the template writes for a conversation without a system prompt."""

    def text(self, chat: Chat) -> str:
        """A conversation whose answer is asked for."""
        text, system = self.head, ""
        if self.default_system is not None and chat[0][0] != "system":
            chat = [("system", self.default_system), *chat]
        for role, content in chat:
            if role == "system" and self.folds_system:
                system = f"{content}{self.system[1]}"
                continue
            before, after = getattr(self, role)
            text += f"{before}{system}{content}{after}"
            system = ""
        return text + self.ask

    def go_template(self) -> str:
        """The same in Go's language."""
        fold = f'{{{{ if $system }}}}{{{{ $system }}}}{self.system[1]}{{{{ $system = "" }}}}{{{{ end }}}}'
        user = f"{self.user[0]}{fold if self.folds_system else ''}{{{{ .Content }}}}{self.user[1]}"
        begin, system = (
            "",
            f'{{{{ if eq .Role "system" }}}}{self.system[0]}{{{{ .Content }}}}{self.system[1]}{{{{ else if',
        )
        if self.folds_system:
            begin, system = "{{ $system := .System }}", "{{ if"
        assistant = f"{self.assistant[0]}{{{{ .Content }}}}{self.assistant[1]}"
        return (
            f'{begin}{self.head}{{{{ range .Messages }}}}{system} eq .Role "user" }}}}{user}'
            f'{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ end }}}}{{{{ end }}}}{self.ask}'
        )


def read_turns(render: Render) -> Turns:
    """What a chat template writes around contents, found by rendering.

    Raises ValueError for a template that does more than that, such as one that writes thoughts or dates.
    """
    asked = render([("user", ASKED)], True)
    plain = render([("user", ASKED)], False)
    # Some end a conversation that asks for nothing: then all that follows a question is what asks.
    plain = plain if asked.startswith(plain) else f"{asked.partition(ASKED)[0]}{ASKED}"
    dialogue = render([("user", ASKED), ("assistant", SAID), ("user", THEN)], False)
    told = _told(render)
    if not _in_order(dialogue, ASKED, SAID, THEN) or not _in_order(told, SYSTEM, ASKED):
        raise ValueError("the chat template does more than to write turns down, which Go's language would not follow")
    opening, _, after = plain.partition(ASKED)
    said = dialogue.partition(ASKED)[2].partition(SAID)[0].removeprefix(after)
    between = dialogue.partition(SAID)[2].partition(THEN)[0]
    before_system, _, joint = told.partition(ASKED)[0].partition(SYSTEM)
    default = _default_system(opening, before_system, joint)
    if default is None:
        head, before_user = _head_and_question(opening, _common_start(opening, before_system), between)
        before_system = before_system.removeprefix(head)
    else:
        head, before_user = "", _common_end(joint, between).removeprefix(after)
    folds = not joint.endswith(before_user) or not before_user
    turns = Turns(
        head,
        (before_system, joint if folds else joint.removesuffix(before_user)),
        (before_user, after),
        (said, between.removesuffix(before_user)),
        asked.removeprefix(plain),
        folds,
        default,
    )
    _check(turns, render)
    return turns


def modelfile(file: str, turns: Turns, stops: Sequence[str], context: int, system: str | None) -> str:
    """The whole file, for `ollama create NAME -f Modelfile` in its folder."""
    lines = [f"FROM ./{file}", f'TEMPLATE """{turns.go_template()}"""']
    if system := system or turns.default_system:
        lines.append(f'SYSTEM """{system}"""')
    parameters = {"temperature": 0, "repeat_penalty": 1, "num_ctx": min(context, LONGEST)}
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n"


def _told(render: Render) -> str:
    try:
        return render([("system", SYSTEM), ("user", ASKED)], False)
    except ValueError:
        # Such a template has no system prompt; the pipeline writes one before the first question.
        return render([("user", f"{SYSTEM}\n\n{ASKED}")], False)


def _in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return min(places) >= 0 and places == sorted(places)


def _default_system(opening: str, before: str, after: str) -> str | None:
    """The system prompt that stands in a conversation that has none, between the same texts as one that is given."""
    longer = len(opening) > len(before) + len(after)
    found = longer and before and opening.startswith(before) and opening.endswith(after)
    return opening.removeprefix(before).removesuffix(after) if found else None


def _head_and_question(opening: str, head: str, between: str) -> tuple[str, str]:
    """(what begins a conversation, what begins a question), which is the end of what stands between answer and question."""
    before_user = opening.removeprefix(head)
    while before_user and not between.endswith(before_user):
        head, before_user = head + before_user[0], before_user[1:]
    return head, before_user


def _common_start(one: str, other: str) -> str:
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(character for character, _ in same)


def _common_end(one: str, other: str) -> str:
    return _common_start(one[::-1], other[::-1])[::-1]


def _check(turns: Turns, render: Render) -> None:
    samples: list[Chat] = [
        [("user", "a")],
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
    ]
    if not turns.folds_system:
        samples.append([("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")])
    for chat in samples:
        if turns.text(chat) != render(chat, True):
            raise ValueError(
                "the chat template writes other turns in longer conversations, which Go's language would not follow"
            )
