"""The attacks on a base folder: indexes, links, names."""

import os
import shutil
from pathlib import Path

from benchmarks.faults.base_folders import HARMLESS, REFUSED, WEIGHTS, hostile, index, link, mapped


@hostile(REFUSED)
def index_names_a_file_outside(folder: Path) -> None:
    mapped(folder, f"../elsewhere/{WEIGHTS}")


@hostile(REFUSED)
def index_names_an_absolute_path(folder: Path) -> None:
    mapped(folder, str(folder.parent / "elsewhere" / WEIGHTS))


@hostile(REFUSED)
def index_names_a_link_outside(folder: Path) -> None:
    mapped(folder, "linked.safetensors")
    link(folder / "linked.safetensors", f"../elsewhere/{WEIGHTS}")


@hostile(REFUSED)
def index_names_a_file_through_a_linked_folder(folder: Path) -> None:
    mapped(folder, f"sub/{WEIGHTS}")
    link(folder / "sub", "../elsewhere")


@hostile(REFUSED)
def index_names_a_file_that_is_not_there(folder: Path) -> None:
    mapped(folder, "model-00001-of-00002.safetensors")


@hostile(REFUSED)
def index_names_itself(folder: Path) -> None:
    mapped(folder, f"{WEIGHTS}.index.json")


@hostile(REFUSED)
def index_names_a_text_file(folder: Path) -> None:
    mapped(folder, "config.json")


@hostile(REFUSED)
def index_names_numbers(folder: Path) -> None:
    mapped(folder, "x")
    index(folder, {"weight_map": {"model.norm.weight": 7}})


@hostile(REFUSED)
def index_is_a_list(folder: Path) -> None:
    mapped(folder, "x")
    index(folder, [1, 2])


@hostile(REFUSED)
def index_has_a_list_as_its_map(folder: Path) -> None:
    mapped(folder, "x")
    index(folder, {"weight_map": ["model.safetensors"]})


@hostile(REFUSED)
def index_is_empty(folder: Path) -> None:
    mapped(folder, "x")
    index(folder, {})


@hostile(REFUSED)
def index_is_no_json(folder: Path) -> None:
    mapped(folder, "x")
    (folder / f"{WEIGHTS}.index.json").write_text("{")


@hostile(REFUSED)
def index_is_no_utf_8(folder: Path) -> None:
    mapped(folder, "x")
    (folder / f"{WEIGHTS}.index.json").write_bytes(b"\xff\xfe\x00{")


@hostile(REFUSED)
def index_is_a_number_as_long_as_a_book(folder: Path) -> None:
    mapped(folder, "x")
    (folder / f"{WEIGHTS}.index.json").write_text('{"weight_map": ' + "9" * 5000 + "}")


@hostile(REFUSED)
def index_is_nested_without_end(folder: Path) -> None:
    mapped(folder, "x")
    (folder / f"{WEIGHTS}.index.json").write_text("[" * 100_000)


@hostile(REFUSED)
def weights_are_a_link_outside(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.move(folder / WEIGHTS, elsewhere / WEIGHTS)
    link(folder / WEIGHTS, f"../elsewhere/{WEIGHTS}")


@hostile(REFUSED)
def weights_are_a_fifo(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


@hostile(REFUSED)
def weights_are_a_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


@hostile(REFUSED)
def weights_are_a_link_to_a_device(folder: Path) -> None:
    link(folder / WEIGHTS, "/dev/zero")


@hostile(REFUSED)
def notice_is_a_link_outside(folder: Path) -> None:
    link(folder / "NOTICE", "/etc/passwd")


@hostile(REFUSED)
def template_is_a_link_outside(folder: Path) -> None:
    (folder.parent / "elsewhere.jinja").write_text("{{ messages[0]['content'] }}")
    link(folder / "chat_template.jinja", "../elsewhere.jinja")


@hostile(REFUSED)
def tokenizer_is_a_link_outside(folder: Path) -> None:
    shutil.move(folder / "tokenizer.json", folder.parent / "elsewhere.json")
    link(folder / "tokenizer.json", "../elsewhere.json")


@hostile(HARMLESS)
def licence_is_a_folder(folder: Path) -> None:
    (folder / "LICENSE2").mkdir()


@hostile(HARMLESS)
def notice_is_a_fifo(folder: Path) -> None:
    os.mkfifo(folder / "NOTICE")


@hostile(HARMLESS)
def notice_is_in_gb18030(folder: Path) -> None:
    (folder / "NOTICE").write_bytes("许可证".encode("gb18030"))


@hostile(HARMLESS)
def a_name_with_a_line_end(folder: Path) -> None:
    (folder / "NOTICE\nx").write_text("x")


@hostile(HARMLESS)
def a_name_that_is_no_utf_8(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/LICENSE\xff"))).write_text("x")


@hostile(HARMLESS)
def a_link_to_itself(folder: Path) -> None:
    link(folder / "NOTICE", "NOTICE")


@hostile(HARMLESS)
def a_folder_that_links_to_its_parent(folder: Path) -> None:
    link(folder / "again", ".")
