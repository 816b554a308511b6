"""Answers that teach nothing: without content, or cut off in the middle of a sentence."""

import math
import re
from typing import Any

_NO_CONTENT = re.compile(
    r"[\W_]*(?:无|没有|暂无|略|空|未知|不详|暂无(?:回答|答案|回复|数据|内容)|无(?:回答|答案|回复|内容)|没有(?:回答|答案|回复|内容)|待补充|"
    r"none|null|nil|nan|n/?a|na|empty|no answer|unknown|todo|tbd)?[\W_]*",
    re.IGNORECASE,
)
"""The whole of an answer: punctuation alone, or a word that stands for a missing value."""
LONG = 12
"""Characters below which an answer is a word or a phrase, and need not be a sentence."""
_ENDS_OPEN = re.compile(
    r"[，、,；;（(《“‘「【\[—]\s*$|(?:^|[^\w])(?:因为|如果|但是|而且|并且|以及|或者|虽然|由于|例如|比如|包括|的话，)$|\b(?:the|a|an|of|and|or|to|with|because|if|that|which)$"
)
"""A comma, a bracket that is not closed, or a word that something must follow."""
_STOP = re.compile(r"[。！？!?…]|(?<=[a-z])\.(?=\s|$)")
_CLOSED = re.compile(r"[。！？!?….:：~～)）\]】》>」』”\"'’*|`=\d]\s*$|[^\w\s]\s*$")
_WISH = re.compile(
    r"(?:祝|希望|谢谢|再见|加油|保重|健康|康复|愉快|顺利|放心|参考|帮助|您|你|吧|呢|哦|啊|呀|的|了|哈)[^，。]{0,8}$"
)
"""How people end without a full stop."""
_LIST = re.compile(r"^\s*(?:[-*•·#>|]|\d+[.、)）]|[（(]\d+|[a-zA-Z][.)])")


def lacks_content(answer: str) -> bool:
    """Whether an answer says nothing: "无", "None", "……"."""
    return len(answer) < 40 and _NO_CONTENT.fullmatch(answer) is not None


def is_cut_off(answer: str) -> bool:
    """Whether an answer breaks off: it ends with what something must follow, or its last sentence alone has no end."""
    text = answer.rstrip()
    if len(text) < LONG:
        return False
    if _ENDS_OPEN.search(text):
        return True
    last_line = text.rpartition("\n")[2]
    if _CLOSED.search(text) or _LIST.match(last_line) or not _STOP.search(last_line):
        return False
    # Sentences before it are closed, in the same line, and this one is not.
    last = _STOP.split(last_line)[-1]
    return not _WISH.search(last) and len(last.strip()) > 1


def fault_of(answer: str) -> str | None:
    """What is wrong with an answer; None for nothing."""
    return "without_content" if lacks_content(answer) else "cut_off" if is_cut_off(answer) else None


def is_missing(value: Any) -> bool:
    """Whether a field holds what a table's missing value becomes as text or as a number: NaN."""
    return value in ("nan", "NaN", "<NA>") or (isinstance(value, float) and math.isnan(value))
