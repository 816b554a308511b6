"""Hostile archives: bombs, names that lead elsewhere, archives in archives."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

from benchmarks.faults.raw_files import good_lines, whole

GIGABYTE = 1_000_000_000


def packed(raw: Path, name: str, content: bytes) -> str:
    (raw / name).write_bytes(content)
    return name


def bomb(opened: io.BytesIO, pack: object, size: int) -> bytes:
    """`size` bytes of one character, packed."""
    with pack as stream:  # type: ignore[attr-defined]
        for _ in range(size // 10_000_000):
            stream.write(b"x" * 10_000_000)
    return opened.getvalue()


@whole
def gzip_of_a_line_of_3_gb(raw: Path) -> str:
    target = io.BytesIO()
    return packed(
        raw, "rows.jsonl.gz", bomb(target, gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1), 3 * GIGABYTE)
    )


@whole
def bzip2_of_a_line_of_1_gb(raw: Path) -> str:
    target = io.BytesIO()
    return packed(raw, "rows.jsonl.bz2", bomb(target, bz2.BZ2File(target, "wb", compresslevel=1), GIGABYTE // 2))


@whole
def xz_of_a_line_of_2_gb(raw: Path) -> str:
    target = io.BytesIO()
    return packed(raw, "rows.jsonl.xz", bomb(target, lzma.LZMAFile(target, "wb", preset=0), 2 * GIGABYTE))


@whole
def zip_of_a_line_of_3_gb(raw: Path) -> str:
    target = io.BytesIO()
    archive = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive.open("rows.jsonl", "w", force_zip64=True) as stream:
        for _ in range(300):
            stream.write(b"x" * 10_000_000)
    archive.close()
    return packed(raw, "rows.zip", target.getvalue())


@whole
def zip_with_names_upwards(raw: Path) -> str:
    with zipfile.ZipFile(raw / "rows.zip", "w") as archive:
        archive.writestr("../../CODE_RAN", "\n".join(good_lines()))
        archive.writestr("/tmp/CODE_RAN", "\n".join(good_lines()))  # noqa: S108
    return "rows.zip"


@whole
def zip_within_zips(raw: Path) -> str:
    content = "\n".join(good_lines()).encode()
    for _ in range(30):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("a.zip", content)
        content = target.getvalue()
    return packed(raw, "rows.zip", content)


@whole
def zip_of_50000_files(raw: Path) -> str:
    with zipfile.ZipFile(raw / "rows.zip", "w") as archive:
        for number in range(50_000):
            archive.writestr(f"{number}.txt", "")
    return "rows.zip"


@whole
def zip_that_needs_a_password(raw: Path) -> str:
    with zipfile.ZipFile(raw / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", "\n".join(good_lines()))
    content = bytearray((raw / "rows.zip").read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return packed(raw, "rows.zip", bytes(content))


@whole
def gzip_cut_in_its_middle(raw: Path) -> str:
    content = gzip.compress("\n".join(good_lines()).encode())
    return packed(raw, "rows.jsonl.gz", content[: len(content) // 2])
