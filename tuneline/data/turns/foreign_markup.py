"""Foreign markup: the chat template of another model, left in the text of a question or an answer.

Text that begins as a template does, with the marker of the user's turn, can be turned into turns. Anything else that
looks like one is counted and stays text: words such as "Human:" in prose are no markup.
"""

import re
from itertools import pairwise
from typing import NamedTuple

from tuneline.data.turns.alternation import alternates
from tuneline.data.turns.conversation import Conversation
from tuneline.data.turns.scored_turn import compared_question
from tuneline.data.turns.tool_turns import uses_tools
from tuneline.formats.records import Message, Role


class Template(NamedTuple):
    """How a chat template marks turns, as regular expressions."""

    name: str
    """As it is shown to the user."""
    user: str
    assistant: str
    system: str = r"(?!)"
    spoken: bool = False
    """Its markers are words that prose may have, so that they count at the beginning of a line, and only as a pair."""


_START = r"(?:^|\n)[ \t]*"
_ROUND = r"(?:\[Round[ ]?\d+\]\s*)"
TEMPLATES = (
    Template("[Round n]", rf"{_ROUND}(?:问[:：])?", rf"{_START}答[:：]"),
    Template("<s>问：", r"<s>\s*问[:：]", rf"{_START}答[:：]"),
    Template(
        "[INST]",
        r"(?:<s>\s*)?\[INST\](?!\s*<<SYS>>)(?=(?s:.*)\[/INST\])",
        r"\[/INST\]",
        r"(?:<s>\s*)?\[INST\]\s*<<SYS>>(?=(?s:.*)\[/INST\])|<</SYS>>",
    ),
    Template(
        "### Instruction:",
        rf"{_START}###\s*(?:Instruction|Human|User|Question|指令|问题|用户|提问)\s*[:：]",
        rf"{_START}###\s*(?:Response|Assistant|Answer|Output|回答|回复|答案|助手|输出)\s*[:：]",
        rf"{_START}###\s*(?:System|系统)\s*[:：]",
    ),
    Template("<|im_start|>", r"<\|im_start\|>\s*user\b", r"<\|im_start\|>\s*assistant\b", r"<\|im_start\|>\s*system\b"),
    Template(
        "<|start_header_id|>",
        r"<\|start_header_id\|>\s*user\s*<\|end_header_id\|>",
        r"<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>",
        r"<\|start_header_id\|>\s*system\s*<\|end_header_id\|>",
    ),
    Template("<start_of_turn>", r"<start_of_turn>\s*user\b", r"<start_of_turn>\s*model\b"),
    Template(
        "<|user|>",
        r"<\|(?:user|human|prompter)\|>\s*[:：]?",
        r"<\|(?:assistant|bot|moss)\|>\s*[:：]?",
        r"<\|system\|>\s*[:：]?",
    ),
    Template("<｜User｜>", r"<｜User｜>", r"<｜Assistant｜>"),
    Template("<reserved_n>", r"<reserved_10[26]>", r"<reserved_10[37]>"),
    Template("<user>:", r"<(?:user|human|usr)>\s*[:：]", r"<(?:bot|assistant|gpt|model)>\s*[:：]"),
    Template("USER: ASSISTANT:", r"(?:^|\s|</s>)USER:", r"(?:^|\s)ASSISTANT:", spoken=True),
    Template(
        "Human: Assistant:", rf"{_START}(?:Human|User)\s*[:：]", rf"{_START}(?:Assistant|Bot|AI)\s*[:：]", spoken=True
    ),
    Template("问： 答：", rf"{_START}问[:：]", rf"{_START}答[:：]", spoken=True),
    Template("用户： 助手：", rf"{_START}用户[:：]", rf"{_START}(?:(?:AI)?助[手理]|客服|机器人)[:：]", spoken=True),
    Template("问题： 回答：", rf"{_START}(?:问题|提问)[:：]", rf"{_START}(?:回答|答复|答案)[:：]", spoken=True),
    # Options of a question begin with "A:" as well.
    Template(
        "Question: Answer:", rf"{_START}(?:Question|Q)[:：]", rf"{_START}(?:Answer|A(?=[:：]\s*\Z))[:：]", spoken=True
    ),
)
"""Every one whose markers are control tokens comes before those that words may be."""
CONTROL_TOKENS = "control tokens"
"""Name of what is left of a template: its tokens without its order."""
_CUES = (
    "[Round", "<s>", "</s>", "INST]", "###", "<|", "<｜", "_of_turn>", "<reserved_", "<user>", "<human>", "<usr>", "<bot>",
    "<eo", "[gMASK]", "答：", "答:", "ssistant", "ASSISTANT", "Bot", "AI:", "AI：", "助手", "助理", "客服", "机器人", "回答：",
    "回答:", "答复：", "答案：", "答案:", "Answer", "\nA:", "\nA：",
)  # fmt: skip
"""One of these is in every text with markup: most texts are told to have none at once."""
_CUE = re.compile("|".join(map(re.escape, _CUES)))
_CONTROL = re.compile(
    r"<\|[A-Za-z_]{2,30}\|>|<｜[^｜<>]{2,30}｜>|\[/?INST\]|\[g?MASK\]|<(?:start|end)_of_turn>|<reserved_\d+>|<eo[ahm]>"
    r"|<</?SYS>>"
)
_BEGIN = re.compile(r"\s*(?:<s>|<\|begin_of_text\|>|<bos>|<｜begin▁of▁sentence｜>|\[gMASK\]\s*<?sop>?)\s*")
_END = re.compile(
    r"\s*(?:</s>|<\|im_end\|>|<\|eot_id\|>|<\|endoftext\|>|<\|end\|>|<end_of_turn>|<eos>|<eo[ahm]>|<｜end▁of▁sentence｜>)\s*$"
)
_INPUT = re.compile(r"\n*###\s*(?:Input|输入)\s*[:：][ \t]*\n?")
_FILLER = re.compile(
    r"\s*(?:Below is an instruction that|以下是描述任务的指令|下面是一[个条]描述任务的指令|以下是一个描述任务的指令)"
)
"""How Alpaca's prompt begins, which says nothing of the task."""
_compiled = {
    template.name: re.compile(
        f"(?P<user>{template.user})|(?P<assistant>{template.assistant})|(?P<system>{template.system})",
        re.IGNORECASE if template.name in ("<|user|>", "### Instruction:") else 0,
    )
    for template in TEMPLATES
}


def find_markup(messages: list[Message]) -> str | None:
    """Name of the template whose markup is in the messages, or of control tokens; None for none."""
    texts = [message["content"] for message in messages]
    text = "\n".join(texts)
    # Tokens are in brackets, headings have a hash, words a colon: to see that a text has none is quicker than to search.
    if not ("<" in text or "[" in text or "#" in text or ":" in text or "：" in text) or not _CUE.search(text):
        return None
    for template in TEMPLATES:
        if any(_shows(template, *pair) for pair in zip(messages, [*texts[1:], ""], strict=True)):
            return template.name
    # "<s>…</s>" in the midst of a text is HTML.
    stray = any(_CONTROL.search(text) or ("<s>" not in text and text.rstrip().endswith("</s>")) for text in texts)
    return CONTROL_TOKENS if stray else None


def turn_into_turns(conversation: Conversation) -> bool:
    """Turn markup into turns, in place, where the text begins as a template does. False where nothing was changed."""
    messages = conversation.messages
    if uses_tools(messages):
        return False
    name = find_markup(messages)
    template = next((template for template in TEMPLATES if template.name == name), None)
    if name is None or (template and template.spoken and not _asked_so(template, messages)):
        return False
    split: list[Message] = []
    for message in messages:
        split += _split(template, message) or [message]
    # A second system prompt, or two turns of one speaker, would be made up.
    systems = [place for place, message in enumerate(split) if message["role"] == "system"]
    taking_turns = alternates([message for message in split if message["role"] != "system"])
    if split == messages or not taking_turns or systems not in ([], [0]) or not all(m["content"] for m in split):
        return False
    conversation.messages = split
    if split[:-1] != messages[:-1]:
        conversation.instruction, conversation.question = "", compared_question(split)
    return True


def _shows(template: Template, message: Message, answer: str) -> bool:
    """Whether a message has the template's markup."""
    text = message["content"]
    found = list(_compiled[template.name].finditer(text))
    roles = [match.lastgroup for match in found]
    # "答：" alone is no template.
    opens = bool(found) and not template.assistant.startswith(_START) and _opens(text, found[0])
    if "user" not in roles and not opens:
        return False
    if message["role"] == "assistant":
        # A model that went on by itself; a dialogue in Chinese may be what was asked for.
        return not template.spoken or (template.name.isascii() and roles[0] == "user" and roles[-1] == "assistant")
    if _is_cue(text, found[-1]):
        return True
    if not template.spoken:
        # Tokens in the midst of a text are no template, as in a question about one.
        return _opens(text, found[0]) or roles[-1] == "assistant"
    first = _compiled[template.name].match(answer.lstrip())
    paired = "assistant" in roles or (first is not None and first.lastgroup == "assistant")
    return roles[0] == "user" and paired and _opens(text, found[0])


def _asked_so(template: Template, messages: list[Message]) -> bool:
    """Whether a question has the template's markup: a dialogue in an answer alone may be what was asked for."""
    pairs = pairwise(messages)
    return any(_shows(template, first, second["content"]) for first, second in pairs if first["role"] == "user")


def _is_cue(text: str, last: re.Match[str]) -> bool:
    """Whether the text ends with the assistant's marker: only a prompt does."""
    return last.lastgroup == "assistant" and not text[last.end() :].strip()


def _opens(text: str, match: re.Match[str]) -> bool:
    """Whether the marker begins the text, but for a token that begins a sequence and Alpaca's first sentences."""
    before = text[: match.start()]
    return not before.strip() or _BEGIN.fullmatch(before) is not None or _FILLER.match(before) is not None


def _split(template: Template | None, message: Message) -> list[Message]:
    """The turns in a message; [] where it does not begin as the template does."""
    text = message["content"]
    begin, found = "", []
    if template is not None:
        found = list(_compiled[template.name].finditer(text))
        begin = text[: found[0].start()] if found else ""
    if message["role"] == "assistant":
        # What comes before a marker is the answer, unless the answer has the marker itself.
        roles: list[Role] = ["assistant"]
        parts = [begin if found else text]
    elif message["role"] == "user" and found and _opens(text, found[0]):
        roles, parts = [], []
    elif message["role"] == "user" and found and _is_cue(text, found[-1]):
        # What a prompt says before its first turn is its system prompt.
        roles, parts = ["system"], [begin]
    else:
        return []
    for match, following in zip(found, [*found[1:], None], strict=False):
        roles.append(_role(match))
        parts.append(text[match.end() : following.start() if following else None])
    turns = [(role, _plain(part)) for role, part in zip(roles, parts, strict=True)]
    # An empty turn of the assistant is the cue to answer; the closing tag of a system prompt begins the question.
    turns = [(role, part) for role, part in turns if part]
    learn = message.get("learn", True)
    split: list[Message] = [
        {"role": role, "content": part}
        if learn or role != "assistant"
        else {"role": role, "content": part, "learn": False}
        for role, part in turns
    ]
    if "reasoning" not in message:
        return split
    if not split or split[0]["role"] != "assistant":
        return []
    split[0]["reasoning"] = message["reasoning"]
    return split


def _role(match: re.Match[str]) -> Role:
    if match.group() == "<</SYS>>":
        return "user"
    return "user" if match.lastgroup == "user" else "assistant" if match.lastgroup == "assistant" else "system"


def _plain(part: str) -> str:
    """A turn's text without the tokens around it."""
    while "<s>" not in part[1:] and (shorter := _END.sub("", part)) != part:
        part = shorter
    return _INPUT.sub("\n", _BEGIN.sub("", part, count=1) if _BEGIN.match(part) else part).strip()
