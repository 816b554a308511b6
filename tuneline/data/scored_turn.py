"""The scored turn of a held-out dialogue: the last one that asks something, and not its thanks and farewell.

A turn that thanks, agrees, promises or takes leave, and has no word of a question, asks nothing. A held-out dialogue
ends with its scored answer; what came after that is in no file.
"""

import re
from typing import Any

from tuneline.formats.records import Message

_CLAUSE = re.compile(r"[，。！；、,.!;~～\n…]+|\s{2,}")
_ASKS = re.compile(
    r"[?？]|吗|呢|么样|什么|怎么|怎样|如何|多少|多久|多大|哪|为何|能否|可否|是否|请问|谁|几[个天次岁年月点种]|能不能|可不可以|要不要|"
    r"会不会|有没有|是不是|想(?:再)?(?:问|知道|了解|咨询)|告诉我|帮我|帮忙|请(?:你|您)?(?:解释|说|给|写|推荐|列|介绍|分析|翻译)|"
    r"\b(?:what|how|why|when|where|which|who|whose|can|could|should|would|may|do|does|did|is|are|tell me|explain|please)\b",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"谢谢|感谢|多谢|谢啦|谢了|感激|再见|拜拜|晚安|辛苦了|\b(?:thanks?|thank you|thx|cheers|appreciate|good ?bye|bye|good night)\b",
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
_WELCOME = re.compile(
    r"\s*(?:不(?:用|必|要)?(?:客气|谢)|别客气|再见|拜拜|you'?re (?:very |most )?welcome|my pleasure|no problem|goodbye|bye)",
    re.IGNORECASE,
)
"""How an answer to thanks begins."""
TURNS = {"last_question": "the last that asks", "last": "the last", "all": "every one that asks"}


def asks(question: str, answer: str) -> bool:
    """Whether a turn asks something, rather than thanks, agrees or takes leave."""
    if _ASKS.search(question):
        return True
    if _WELCOME.match(answer):
        return False
    clauses = [clause.strip() for clause in _CLAUSE.split(question) if clause.strip()]
    thanks = any(_THANKS.search(clause) or _AGREES.match(clause) for clause in clauses)
    empty = all(pattern_of(clause) for clause in clauses)
    return not (thanks and empty)


def pattern_of(clause: str) -> bool:
    """Whether a clause is one of those that a farewell is made of."""
    return any(pattern.search(clause) for pattern in (_THANKS, _AGREES, _PROMISES))
