"""Check of a chat template at loading: that our ids are those of transformers; and what it does of its own."""

from collections.abc import Iterator

from tuneline.formats.records import Message, Role
from tuneline.models.template_prompt import TemplatePrompter
from tuneline.models.template_render import sentinel
from tuneline.models.template_slots import Slot

QUESTIONS = ("感冒了，怎么办？", "  Hello  world, 3.14!\n\nWhat's   new?\n", "def f(x):\n\treturn x  ", "多少mg？😀 ½")
ANSWERS = ("多休息、多喝温水。", "Fine.\n\n1. One\n2. Two\n", "x = 1234567  ", "😀")
SYSTEM = "请简短回答。\n"
THOUGHTS = "先想一想。\n\nThen answer."


def check_template(prompter: TemplatePrompter) -> None:
    """Raises ValueError when a probing conversation gets other ids than transformers gives for it.

    A conversation that the template itself refuses (thoughts, several turns) is no probe, but one question and answer is.
    """
    render, appended = prompter.renderer, prompter.parts.appended
    for messages in probes():
        arranged = render.arranged(messages)
        thinking = "reasoning" in messages[-1]
        try:
            prompt, whole = render.ids(arranged[:-1], True, thinking), render.ids(arranged, False, thinking)
        except ValueError:
            if len(messages) > 2 or thinking:
                continue
            raise
        row = prompter.training_row(messages)
        ours = prompter.generation_prompt(messages[:-1], thinking)
        parts = prompter.parts.of(arranged, False, thinking)
        # Where thoughts are put in by hand, the template itself gives another text, which is compared as text.
        by_hand = not appended and parts.pieces != parts.rendered
        same = by_hand or prompter.uncut(messages, False, thinking)[: len(whole)] == whole
        if not same or prompter.uncut(messages[:-1], True, thinking) != prompt or row.input_ids[: len(ours)] != ours:
            raise ValueError(
                "the base's chat template gives other ids than its parts do: its texts and those of people make tokens "
                f"together, in {render.render(arranged)[-60:]!r}"
            )


def probes() -> Iterator[list[Message]]:
    """Conversations with and without a system prompt and thoughts, of one to three exchanges."""
    for system in (False, True):
        for exchanges in (1, 2, 3):
            for reasons in ((), (exchanges,), range(1, exchanges + 1)):
                messages: list[Message] = [{"role": "system", "content": SYSTEM}] if system else []
                for number in range(1, exchanges + 1):
                    messages.append({"role": "user", "content": QUESTIONS[number]})
                    messages.append({"role": "assistant", "content": ANSWERS[number]})
                    if number in reasons:
                        messages[-1]["reasoning"] = THOUGHTS
                yield messages


def template_rules(prompter: TemplatePrompter) -> list[str]:
    """What the template does to a conversation besides writing its contents down, a sentence each."""
    render = prompter.renderer
    rules = []
    if render.dated:
        rules.append("it may write today's date, which is 26 July 2024 here, so that ids do not change with the day")
    if render.in_parts:
        rules.append("it takes a content as a list of parts, and gets it as one part of text")
    if render.folds_system:
        rules.append("it has no system prompt: one is put before the first question, with an empty line between")
    if render.drops_reasoning:
        rules.append("it forgets thoughts, which are put in by hand after its generation prompt")
    if prompter.parts.appended:
        rules.append(f"it ends no last answer: {prompter.parts.appended} is put there")
    if not _turns_are_control(prompter):
        rules.append("it tells turns apart by ordinary words, which a text can spell, too")
    return [*rules, *_seam_rules(prompter), *_slot_rules(prompter)]


def _turns_are_control(prompter: TemplatePrompter) -> bool:
    """Whether a control token stands between a question and its answer."""
    pieces = prompter.parts.of(next(probes()), False, False).pieces
    places = [number for number, piece in enumerate(pieces) if isinstance(piece, Slot)]
    written = "".join(piece for piece in pieces[places[0] : places[1]] if isinstance(piece, str))
    return bool(prompter.spelled.names(written))


def _seam_rules(prompter: TemplatePrompter) -> list[str]:
    messages = next(probes())
    if prompter.training_row(messages).input_ids == prompter.uncut(messages, False, False):
        return []
    return ["its generation prompt and the answer's beginning make a token together: the answer is encoded apart"]


def _slot_rules(prompter: TemplatePrompter) -> list[str]:
    """What becomes of contents in a conversation of two exchanges."""
    roles: list[Role] = ["system", "user", "assistant", "user", "assistant"]
    messages: list[Message] = [{"role": role, "content": sentinel(n, "content")} for n, role in enumerate(roles)]
    for number in (2, 4):
        messages[number]["reasoning"] = sentinel(number, "reasoning")
    arranged = prompter.renderer.arranged(messages)
    slots = [slot for slot in prompter.parts.of(arranged, False, True).rendered if isinstance(slot, Slot)]
    stripped = {arranged[slot.message]["role"] for slot in slots if slot.left != "" or slot.right != ""}
    rules = []
    if stripped:
        rules.append(f"it strips white space or line ends around texts of {', '.join(sorted(stripped))}")
    thoughts = {slot.message for slot in slots if slot.field == "reasoning"}
    if len(thoughts) == 1:
        rules.append("it leaves out the thoughts of earlier answers")
    return rules
