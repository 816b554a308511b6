"""Bytes to text: the encodings that Chinese question-answer files really come in."""

import codecs
from pathlib import Path

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def decode(content: bytes, path: Path) -> str:
    """Decode by BOM, else UTF-8, else GB18030 (a superset of GBK and GB2312), with every line end as "\\n".

    The order matters: text in UTF-8 often decodes as GB18030 without an error, into other characters.
    Raises ValueError for an empty file and for bytes that are none of these.
    """
    if not content.strip():
        raise ValueError(f"{path} is empty ({len(content)} bytes), expected questions and answers")
    encodings = [name for bom, name in BOMS if content.startswith(bom)] or ["utf-8", "gb18030"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            last = error
            continue
        return text.replace("\r\n", "\n").replace("\r", "\n")
    raise ValueError(
        f"{path} is neither UTF-8 nor GB18030 nor UTF-16 with a BOM (byte {last.start} is {content[last.start]:#04x}); "
        "convert it, for example with iconv"
    )
