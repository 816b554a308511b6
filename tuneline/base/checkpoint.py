"""Folder of a checkpoint before anything of it is loaded: closed, with a config.json that leads nowhere else."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneline.formats.closed_folder import check_closed
from tuneline.formats.json_object import json_object
from tuneline.models.config import Base
from tuneline.models.conversion.whole import refuse_adapter
from tuneline.runtime.errors import StoppedError, is_out_of_memory, sentence

ELSEWHERE = {
    "config.json": ("configuration_files", "transformers_weights"),
    "tokenizer_config.json": ("fast_tokenizer_files",),
}
"""Keys by which transformers reads other files than those that lie there by their usual names."""
FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja", "generation_config.json")
COUNTS = re.compile(r"(layers|layer|blocks|depth|labels|replace)$")
MOST = 10_000
"""Layers or labels that a config may have: its class makes something for each before anything can be compared."""
MOST_EXPERTS = 100_000
"""The same of experts: Doge has 16,384 unless its config says otherwise."""
LONGEST = 1000
"""Characters of a library's error."""
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What is wrong with where is written, and not with what is read."""


def read_checkpoint(source: Path) -> dict[str, Any]:
    """config.json of a folder that is closed. Raises ValueError for one that is not, or that holds an adapter as well."""
    check_closed(source)
    refuse_adapter(source)
    if found := [name for name in FILES if (source / name).is_dir()]:
        raise ValueError(f"{source / found[0]} is a folder, expected a file")
    config = read_object(source / "config.json")
    _check_values(source / "config.json", config)
    # transformers goes on without one that is broken.
    read_object(source / "generation_config.json")
    for name, keys in ELSEWHERE.items():
        values = config if name == "config.json" else read_object(source / name)
        if found := [key for key in keys if key in values]:
            raise ValueError(
                f"{source / name} has {found[0]}, by which other files are read than those that are seen; take the key away"
            )
    return config


def _check_values(path: Path, config: dict[str, Any]) -> None:
    """Raises ValueError for a count for which a config's class would run for ever."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_values(path, value)
        elif type(value) is int and abs(value) > (most := _most(key)):
            raise ValueError(f"{path} has {key} {value}, expected at most {most}")


def _most(key: str) -> int:
    if key.endswith("experts"):
        return MOST_EXPERTS
    return MOST if COUNTS.search(key) else 2**53


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one where there is no file but of config.json. Raises ValueError when it is none."""
    if not path.exists() and path.name != "config.json":
        return {}
    return json_object(path)


@contextmanager
def in_one_sentence(params: Base, what: str) -> Iterator[None]:
    """Whatever libraries make of a stranger's files, as the ValueError of a source that `what` is said of."""
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        own = isinstance(error, OSError) and error.errno in OF_DISKS
        if own or is_out_of_memory(error) or str(error).startswith("base.source"):
            raise
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        # torch adds where in its own code it was.
        said = sentence(error).partition(" Exception raised from ")[0]
        raise ValueError(f"base.source {params.source!r} {what}: {kind}{said[:LONGEST]}") from error
