"""Files in YAML 1.2: their content, the line of a key, and values as they are shown in messages."""

import reprlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

LONGEST = 400
"""Characters of a value that a message repeats."""
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_short.maxlist = _short.maxdict = 12
_short.maxlevel = 3
_short.maxlong = 60


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 file's content. Raises ValueError with the place of a mistake."""
    # Here, so that worker processes, which get their sections whole, do not import it each.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
    except (YAMLError, ValueError, ArithmeticError, AssertionError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply, expected sections of keys and values") from None


def line_of(path: Path, keys: Sequence[Any]) -> int | None:
    """The line of the file, from 1, on which the value under these keys begins, or the innermost that is there.

    None where not even the first two keys are.
    """
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if not path.is_file():
        return None
    node, depth = _nodes(path.read_text(encoding="utf-8-sig")), 0
    line = None
    for depth, key in enumerate(keys):  # noqa: B007
        if isinstance(node, MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
        elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = (node.value[key], node.value[key])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line if depth or line else None


@lru_cache(maxsize=1)
def _nodes(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).compose(text)


def shown(value: Any) -> str:
    """A value as Python writes it; of a long or a deep one the beginning."""
    try:
        text = _short.repr(value)
    except ValueError:
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
