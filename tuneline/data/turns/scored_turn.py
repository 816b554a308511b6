"""The scored turn of a held-out dialogue: the last one that asks something, and not its thanks and farewell.

A turn that thanks, agrees, promises or takes leave, and has no word of a question, asks nothing. A held-out dialogue
ends with its scored answer; what came after that is in no file.
"""

import re
from typing import Any

from tuneline.formats.records import Message, exchanges, is_learnt

MIN_COMPARED = 8
"""Characters of a last question that is compared on its own; below, all of the user's messages are compared."""
_CLAUSE = re.compile(r"[，。！；、,.!;~～\n…]+|\s{2,}")
_ASKS = re.compile(
    r"[?？]|吗|呢|么样|什么|怎么|怎样|如何|多少|多久|多大|哪|为何|能否|可否|是否|请问|谁|几[个天次岁年月点种]|能不能|可不可以|要不要|"
    r"会不会|有没有|是不是|想(?:再)?(?:问|知道|了解|咨询)|(?<!会)(?<!要)告诉我|帮我|帮忙|请(?:你|您)?(?:解释|说|给|写|推荐|列|介绍|分析|翻译)|"
    r"\b(?:what|how|why|when|where|which|who|whose|can|could|should|would|may|do|does|did|is|are|tell me|explain|please)\b",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"谢谢|感谢|多谢|谢啦|谢了|感激|再见|拜拜|晚安|辛苦了|"
    r"\b(?:thanks?|thank you|thx|cheers|appreciate|good ?bye|bye|good night)\b",
    re.IGNORECASE,
)
_AGREES = re.compile(
    r"^(?:我)?(?:好|嗯|哦|噢|行|对|是的|可以|明白|知道|了解|清楚|懂|没问题|没有了|没了|原来如此|听起来|有道理|[你您]说[得的]|太好了|"
    r"ok|okay|sure|great|fine|good|nice|perfect|got it|i see|i understand|understood|all right|alright|no problem)",
    re.IGNORECASE,
)
_PROMISES = re.compile(
    r"我[们]?(?:一定|也|都|就|还|先|现在|马上|立刻|今天|明天|这就)*(?:会|将|愿意|要|想|去|试|按|尽|努力|相信|希望|期待|感觉|觉得|放心|珍惜)|"
    r"试试|试着|尝试|努力|尽量|尽力|尽快|按照|照做|祝|希望|相信|期待|记住|注意|加油|帮助|建议|支持|鼓励|解答|医生|老师|咨询师|先生|女士|"
    r"\b(?:i'?ll|i will|i hope|let me|take care|help\w*|best)\b",
    re.IGNORECASE,
)
_IF_ANYTHING = re.compile(r"(?:如果|要是|若|以后|将来|再)[^，。！？?]{0,12}什么[^，。！？?吗呢怎]{0,10}(?=[，。])")
"""A promise to come back."""
_WELCOME = re.compile(
    r"\s*(?:不(?:用|必|要)?(?:客气|谢)|别客气|再见|拜拜|you'?re (?:very |most )?welcome|my pleasure|no problem|goodbye|bye)",
    re.IGNORECASE,
)
"""How an answer to thanks begins."""
_GOES_ON = re.compile(
    r"但|不过|可是|然而|只是|还是|另外|至于|虽然|担心|害怕|困惑|难受|开始吧|继续(?!努力|学习|加油|保持)|\b(?:but|however|also)\b",
    re.IGNORECASE,
)
"""Words after which a turn says more than its courtesies."""


def asks(question: str, answer: str, first: bool = False) -> bool:
    """Whether a turn asks something, rather than thanks, agrees, promises or takes leave.

    The first turn of a dialogue may thank beforehand for what it tells of.
    """
    welcome = _WELCOME.match(answer) is not None
    if welcome and _THANKS.search(question) and not re.search("[?？]", question):
        return False
    if _ASKS.search(_IF_ANYTHING.sub("", question)):
        return True
    if welcome:
        return False
    clauses = [clause.strip() for clause in _CLAUSE.split(question) if clause.strip()]
    if not clauses or _GOES_ON.search(question):
        return True
    if not first and _THANKS.search(question):
        return False
    courteous = any(_THANKS.search(clause) or _AGREES.match(clause) for clause in clauses)
    return not courteous or not all(_is_courtesy(clause) for clause in clauses)


def asking_exchanges(messages: list[Message]) -> list[int]:
    """Numbers, from 0, of the exchanges of a dialogue that ask something; a single one always does.

    One whose answer is not to be learnt is not to be scored either, and left out.
    """
    parts = exchanges(messages)
    if len(parts) <= 1:
        return [0]
    return [
        number
        for number, part in enumerate(parts)
        if all(map(is_learnt, _answers(part)[:1])) and asks(*_turn(part), first=number == 0)
    ]


def last_asking_question(messages: list[Message]) -> str:
    """The last question that asks something, else the last one; the last may stand without its answer."""
    asking = asking_exchanges(messages)
    return _turn(exchanges(messages)[asking[-1] if asking else -1])[0]


def compared_question(messages: list[Message]) -> str:
    """Text in which leaks are looked for: the last question that asks, or all of the user's messages when it is short."""
    question = last_asking_question(messages)
    if len(question.strip()) >= MIN_COMPARED:
        return question
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def scored_records(record: dict[str, Any], turns: str, count: int = 1) -> list[dict[str, Any]]:
    """The items that a held-out record gives, by data.heldout_turns: the record up to each scored answer.

    An item that ends before the record does has the record's id and the number of its exchange, as in `#2`. Where tools are
    the task, an exchange is scored by its first answer, which calls a function or does not; `last` is the last message anyhow.
    `count` limits the items where all answers are scored.
    """
    if turns == "last":
        return [record]
    asking = asking_exchanges(record["messages"])
    last = len(exchanges(record["messages"])) - 1
    numbers = (asking[:count] if turns == "all" else asking[-1:]) if asking else [last]
    return [_cut(record, number) for number in numbers]


def _is_courtesy(clause: str) -> bool:
    return any(pattern.search(clause) for pattern in (_THANKS, _AGREES, _PROMISES))


def _cut(record: dict[str, Any], number: int) -> dict[str, Any]:
    """The record up to the scored answer of an exchange; itself where that is its end."""
    messages = record["messages"]
    parts = exchanges(messages)
    scored = parts[number]
    if record.get("task") == "tools" and (answers := _answers(scored)):
        scored = scored[: scored.index(answers[0]) + 1]
    size = int(messages[0]["role"] == "system") + sum(map(len, parts[:number])) + len(scored)
    if size == len(messages):
        return record
    kept = {name: value for name, value in record.items() if name != "references"}
    return kept | {"id": f"{record['id']}#{number + 1}", "messages": messages[:size]}


def _answers(part: list[Message]) -> list[Message]:
    return [message for message in part if message["role"] == "assistant"]


def _turn(part: list[Message]) -> tuple[str, str]:
    """(question, what is said to it at last) of an exchange, "" for an answer that is not there."""
    answers = _answers(part)
    return part[0]["content"], answers[-1]["content"] if answers else ""
