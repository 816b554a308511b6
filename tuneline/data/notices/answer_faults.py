"""Faults of an answer that a model should not learn: no content, or a sentence that breaks off. They are counted."""

import re

_NO_CONTENT = re.compile(
    r"[\W_]*(?:无|没有|暂无|略|空|未知|不详|(?:暂无|无|没有)(?:回答|答案|回复|数据|内容)|待补充|"
    r"none|null|nil|nan|n/?a|na|empty|no answer|unknown|todo|tbd)?[\W_]*",
    re.IGNORECASE,
)
"""The whole of an answer: punctuation alone, or a word that stands for a missing value."""
_NO_LABEL = re.compile(r"[\W_]*(?:null|nil|#n/a)[\W_]*", re.IGNORECASE)
SHORT = 40
"""Characters from which on an answer has content."""
SENTENCE = 12
"""Characters below which an answer is a word or a phrase, and need not be a sentence."""
_ENDS = frozenset("。！？.!?…）)」』】》”’")
"""With one of these at its end nearly every answer is whole."""
_ENDS_OPEN = re.compile(
    r"[，、,；;（(《“‘「【\[—]$|(?:因为|如果|但是|而且|并且|以及|或者|虽然|由于|例如|比如|包括)$|(?:^|[，。、\s])[但或和与]$|"
    r"\b(?:the|an|of|and|or|to|with|because|if|that|which|for|in)$"
)
"""A comma, a bracket that is not closed, or a word that something must follow."""
TAIL = 16
"""Characters of the end that is looked at; a word fits in."""
_STOP = re.compile(r"[。！？!?…，；]|(?<=[a-z])[.,](?=\s|$)")
_CLOSED = re.compile(r"[^\w\s]$|\d$")
_INFORMAL = re.compile(
    r"(?:祝|希望|谢谢|再见|加油|保重|健康|康复|愉快|顺利|放心|参考|帮助|您|你|吧|呢|哦|啊|呀|的|了|哈)[^，。]{0,8}$"
)
"""How people end without a full stop."""
_LIST = re.compile(r"^\s*(?:[-*•·#>|]|\d+[.、)）]|[（(]\d+|[a-zA-Z][.)])")


def fault_of(answer: str, task: str) -> str | None:
    """without_content, cut_off or no_full_stop; None for an answer without fault, and for tasks but qa."""
    if task != "qa":
        return None
    if lacks_content(answer):
        return "without_content"
    text = answer.rstrip()
    if len(text) < SENTENCE or text[-1] in _ENDS:
        return None
    if _ENDS_OPEN.search(text[-TAIL:]):
        return "cut_off"
    return "no_full_stop" if lacks_full_stop(text) else None


def lacks_content(answer: str) -> bool:
    """Whether an answer says nothing: "无", "None", "……"."""
    return len(answer) < SHORT and _NO_CONTENT.fullmatch(answer) is not None


def is_no_label(answer: str) -> bool:
    """Whether a program wrote it for a missing value; unlike an answer, a label may well be "无" or "None"."""
    return _NO_LABEL.fullmatch(answer) is not None


def lacks_full_stop(text: str) -> bool:
    """Whether the last sentence has no end, though its author sets commas or stops: it may be cut off."""
    last_line = text.rpartition("\n")[2]
    if _CLOSED.search(text[-1:]) or (_LIST.match(last_line) and "\n" in text) or not _STOP.search(last_line):
        return False
    last = _STOP.split(last_line)[-1]
    return not _INFORMAL.search(last) and len(last.strip()) > 1
