"""XML documents of question-answer pairs (MedQuAD).

<Document id="0000006_7" source="CancerGov"><Focus>…</Focus><QAPairs><QAPair pid="1">
<Question qid="0000006_7-1" qtype="information">What is …?</Question><Answer>Key Points …</Answer></QAPair></QAPairs></Document>
"""

import re
from collections.abc import Iterator
from typing import Any, TextIO

from defusedxml import DefusedXmlException, ElementTree

from tuneline.data.readers.text import Piece, whole_of

PAIR = "QAPair"
_PROLOGUE = re.compile(r"^\s*(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*)*<", re.DOTALL)


def claims(head: str) -> bool:
    return _PROLOGUE.match(head) is not None and ("<QAPair" in head or "<Document" in head)


def pieces(file: TextIO) -> Iterator[Piece]:
    """One piece a pair. A document that is no well-formed XML is one reject; a DTD is refused (entity bombs)."""
    whole = whole_of(file)
    if whole.reason:
        yield whole
        return
    text = whole.raw
    try:
        # Text has been decoded already: what the prologue says of the encoding no longer holds.
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text), forbid_dtd=True)
    except (ElementTree.ParseError, ValueError) as error:
        yield Piece("1", text, "xml_with_a_dtd" if isinstance(error, DefusedXmlException) else "broken_xml")
        return
    for number, pair in enumerate(root.iter(PAIR)):
        yield Piece(f"[{number}]", ElementTree.tostring(pair, encoding="unicode"))


def parse(raw: str) -> dict[str, Any]:
    pair = ElementTree.fromstring(raw)
    return {"question": _text(pair.find("Question")), "answer": _text(pair.find("Answer"))}


def _text(element: Any) -> str:
    """All text inside, that of inner elements (<b>, <i>) included."""
    return "" if element is None else "".join(element.itertext())
