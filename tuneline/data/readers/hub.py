"""A dataset of the Hugging Face hub, by id and revision, or a folder laid out like one.

    - path: shibing624/medical
      format: hub
      revision: 0123456789abcdef0123456789abcdef01234567

Files only: datasets no longer runs code that comes with data, and we ask for none. What a folder unpacks to is limited as
that of a file is.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from tuneline.data.limits.raw_files import Unpacked, stepwise
from tuneline.data.readers.columnar import ROW, row_to_json
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import MAX_RECORD, REJECT_BYTES


def raw_records(name: str, revision: str | None, split: str, raw: Path) -> Iterator[RawRecord]:
    """Rows of one split, streamed. Raises ValueError for a hub id without a revision, or what can't be loaded, or is a trap."""
    import datasets

    local = raw / name
    if not local.is_dir() and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(
            f"data.sources: {name!r} is no folder in {raw}, so it is a dataset of the hub, and its revision is "
            f"{revision!r}, expected the 40 hexadecimal digits of a commit: a branch would change under you"
        )
    location = {"path": str(local)} if local.is_dir() else {"path": name, "revision": revision}
    try:
        rows = datasets.load_dataset(**location, split=split, streaming=True)
        unpacked = Unpacked(local) if local.is_dir() else None
        for number, row in enumerate(rows if unpacked is None else stepwise(local, iter(rows))):
            text = row_to_json(row)
            if unpacked is not None:
                unpacked.add(ROW + len(text))
            yield _record(f"{split}[{number}]", text)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"data.sources: dataset {name!r} can't be read: {' '.join(str(error).split())}") from None


def _record(place: str, text: str) -> RawRecord:
    """A row; of one that is too long its beginning, with the reason."""
    if len(text) <= MAX_RECORD:
        return RawRecord(place, text)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return RawRecord(place, text[:REJECT_BYTES], f"longer_than_{MAX_RECORD}_characters", digest)
