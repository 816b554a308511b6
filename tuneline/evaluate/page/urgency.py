"""Words of urgency in text answers: where the reference sends to hospital at once and the tuned model's answer does not.

A search for words finds candidates to read; it is no test of safety.
"""

import re

from tuneline.evaluate.compare import Row
from tuneline.scoring.counted import COUNTED

PRESSING = (
    r"急诊|立即|立刻|马上|赶紧|赶快|尽快|尽早就(?:医|诊)|及时(?:就医|就诊|送医|去医院|到医院)"
    r"|emergency|immediately|at once|right away|as soon as possible|without delay|urgent(?:ly)?"
)
"""How soon, and where to; said with a "not" before it, it is no warning."""
UNNEEDED = (
    r"不用|不必|无需|无须|不需要?|不要|不能|不宜|没必要|(?<!特)别"
    r"|\bno need (?:for|of) (?:an? )?|\bno |\bnot (?:an? )?|n't (?:need )?(?:an? )?"
)
"""What takes the urgency away."""
GRAVE = re.compile(
    r"急救|抢救|救护车|拨打|轻生|自杀|自残|自伤"
    r"|(?<!\d)(?<!\d[.,/])120(?!\s*(?:\d|[.,/]\d|%|/|mmHg|毫|次|下|分|克|斤|公|厘|米|元|岁|天|周|个|条|ml|mg))"
    r"|ambulance|\b911\b|\b999\b|suicid|kill (?:my|your|him|her|them)sel[fv]",
    re.IGNORECASE,
)
"""A warning however it is said. 120, China's number of the ambulance, is none as a measure."""
NOT_PRESSING = re.compile(rf"(?:{UNNEEDED})(?:去|看|挂|到|再)?(?:{PRESSING})", re.IGNORECASE)
PRESSES = re.compile(PRESSING, re.IGNORECASE)


def warns(text: str) -> bool:
    """Whether it holds words of urgency."""
    return bool(GRAVE.search(text) or PRESSES.search(NOT_PRESSING.sub(" ", text)))


def is_text(row: Row) -> bool:
    """Whether the answer is text for a person to read, and neither a label nor something extracted."""
    return row["task"] != "label" and row["task"] not in COUNTED


def should_warn(row: Row) -> bool:
    """Whether the reference that the page shows is a text with words of urgency."""
    return is_text(row) and warns(row["references"][0])


def lacks_warning(row: Row) -> bool:
    """Whether the reference warns and the tuned model's answer does not."""
    return should_warn(row) and not warns(row["tuned"])
