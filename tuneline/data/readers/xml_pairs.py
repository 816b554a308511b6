"""XML documents of question-answer pairs (MedQuAD).

<Document id="0000006_7" source="CancerGov"><Focus>…</Focus><QAPairs><QAPair pid="1">
<Question qid="0000006_7-1" qtype="information">What is …?</Question><Answer>Key Points …</Answer></QAPair></QAPairs></Document>
"""

import re
from collections.abc import Iterator
from typing import Any, TextIO

from defusedxml import DefusedXmlException, ElementTree

from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_whole

PAIR = "QAPair"
_PROLOGUE = re.compile(r"^\s*(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*)*<", re.DOTALL)


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format."""
    return _PROLOGUE.match(head) is not None and ("<QAPair" in head or "<Document" in head)


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    """One raw record a pair. One that is nested too deeply is a reject, and so is a document
    that is no well-formed XML; a DTD is refused (entity bombs)."""
    document = read_whole(file)
    if document.reason:
        yield document
        return
    try:
        # Text has been decoded already: what the prologue says of the encoding no longer holds.
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", document.text), forbid_dtd=True)
    except (ElementTree.ParseError, ValueError) as error:
        reason = "xml_with_a_dtd" if isinstance(error, DefusedXmlException) else "broken_xml"
        yield RawRecord("1", document.text, reason)
        return
    for number, pair in enumerate(root.iter(PAIR)):
        try:
            yield RawRecord(f"[{number}]", ElementTree.tostring(pair, encoding="unicode"))
        except RecursionError:
            yield RawRecord(f"[{number}]", "".join(pair.itertext()), "nested_too_deeply")


def parse(text: str) -> dict[str, Any]:
    pair = ElementTree.fromstring(text)
    return {"question": _inner_text(pair.find("Question")), "answer": _inner_text(pair.find("Answer"))}


def _inner_text(element: Any) -> str:
    """All text inside, that of inner elements (<b>, <i>) included."""
    return "" if element is None else "".join(element.itertext())
