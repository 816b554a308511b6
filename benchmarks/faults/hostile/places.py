"""What stands where a raw file should: pipes, devices, links, folders, hostile names."""

import json
import os
from pathlib import Path

from benchmarks.faults.raw_files import beside_good_rows, good_lines, whole


@whole
def a_fifo(raw: Path) -> str:
    os.mkfifo(raw / "rows.jsonl")
    return "rows.jsonl"


@whole
def a_link_to_a_device(raw: Path) -> str:
    (raw / "rows.jsonl").symlink_to("/dev/zero")
    return "rows.jsonl"


@whole
def a_link_into_proc(raw: Path) -> str:
    (raw / "rows.jsonl").symlink_to("/proc/1/mem")
    return "rows.jsonl"


@whole
def a_link_to_nothing(raw: Path) -> str:
    (raw / "rows.jsonl").symlink_to("nowhere")
    return "rows.jsonl"


@whole
def a_file_that_nobody_may_read(raw: Path) -> str:
    (raw / "rows.jsonl").write_text("\n".join(good_lines()), encoding="utf-8")
    (raw / "rows.jsonl").chmod(0)
    return "rows.jsonl"


@whole
def a_folder_that_nobody_may_read(raw: Path) -> str:
    (raw / "rows").mkdir()
    (raw / "rows/rows.jsonl").write_text("\n".join(good_lines()), encoding="utf-8")
    (raw / "rows").chmod(0)
    return "rows"


@whole
def a_folder_that_is_called_a_file(raw: Path) -> str:
    (raw / "rows.jsonl").mkdir()
    return "rows.jsonl"


@beside_good_rows
def a_folder_of_5000_files_of_nothing(raw: Path) -> str:
    (raw / "rows").mkdir()
    for number in range(5_000):
        (raw / f"rows/{number}.jsonl").write_bytes(b"")
    (raw / "rows/good.jsonl").write_text("\n".join(good_lines()), encoding="utf-8")
    return "rows"


@beside_good_rows
def a_folder_with_hostile_names(raw: Path) -> str:
    (raw / "rows").mkdir()
    for name in ("a\nb.jsonl", "-rf", "\x1b[31m.jsonl", "a" * 250, "..jsonl", "$(touch x).jsonl"):
        (raw / "rows" / name).write_text("\n".join(good_lines()), encoding="utf-8")
    (raw / os.fsdecode(b"rows/\xff\xfe.jsonl")).write_text("\n".join(good_lines()), encoding="utf-8")
    return "rows"


@whole
def a_dataset_that_brings_code(raw: Path) -> str:
    (raw / "rows").mkdir()
    (raw / "rows/rows.py").write_text("open('CODE_RAN', 'w')\n")
    (raw / "rows/dataset_infos.json").write_text(json.dumps({"default": {}}))
    return "rows"
