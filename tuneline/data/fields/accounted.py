"""Accounting of fields: which of a record nothing reads, and which of those its task rests on."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tuneline.data.fields.names import MESSAGES, plain_name, present_fields
from tuneline.data.fields.values import SEPARATOR, has_content, leaves

CONTEXT = (
    "context", "contexts", "passage", "passages", "paragraph", "paragraphs", "document", "documents", "article",
    "material", "materials", "background", "knowledge", "evidence", "evidences", "story", "laws", "law", "reference",
    "reference_text", "schema", "材料", "背景", "上下文", "段落", "文章", "法条", "法律条文", "参考资料",
)  # fmt: skip
"""Fields that an answer rests on: they are put before the question unasked."""
TEXTS = ("content", "text", "sentence")
"""The same beside a question of another name, unless they repeat the answer."""
CONTEXTS = (*CONTEXT, *TEXTS)
PICTURES = (
    "image", "images", "image_path", "image_paths", "img", "pixel_values", "video", "videos", "audio", "audios",
    "图片", "图像", "视频", "音频",
)  # fmt: skip
REASONING = (
    "reasoning_content", "reasoning", "complex_cot", "think", "thinking", "thought", "thoughts", "cot",
    "chain_of_thought", "reasoning_process", "思考过程", "思考", "推理过程",
)  # fmt: skip
"""Fields that hold thoughts before an answer, the likeliest first; one that is no text of an answer's is refused."""
AMBIGUOUS = ("references", "prompt", "query", "question", "instruction", "input", "问题", "history")
"""Fields that are the question's or the answer's in one set and a note in another."""
PARTIAL_MASKS = ("training_detail", "train_detail", "message_field_training_detail")
"""Masks of parts of a message."""
TASK_FIELDS = frozenset({
    *CONTEXT, *TEXTS, *PICTURES, *REASONING, *AMBIGUOUS, *PARTIAL_MASKS, "options", "option", "choices", "选项",
})  # fmt: skip
"""Fields that a task rests on: when nothing reads one, its source is refused until params.yaml says what to do."""


def context_fields(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the fields that answers are known to rest on."""
    return present_fields(CONTEXTS, names)


def unused_fields(fields: dict[str, Any], used: Iterable[str], kept: Iterable[str]) -> set[str]:
    """Paths, without indexes, of what has content and is under no `used` path.

    A task field of which every text stands in one of the `kept` texts, such as the first question of a dialogue
    repeated beside it, is not lost.
    """
    used = set(used)
    rest = [name for name in fields if name not in used]
    if not rest:
        return set()
    inner = {path for path in used if path not in fields and SEPARATOR in path}
    found = set()
    for name in rest:
        value = fields[name]
        if not has_content(value):
            continue
        if not inner and isinstance(value, (str, int, float)) and plain_name(name) not in TASK_FIELDS:
            found.add(name)
            continue
        below = {path for path in inner if path.startswith(name + SEPARATOR)}
        for path, leaf in leaves_beside(value, name, below):
            if not (plain_name(path) in TASK_FIELDS and isinstance(leaf, str) and is_kept(leaf, kept)):
                found.add(path)
    return found


def leaves_beside(value: Any, name: str, used: set[str]) -> list[tuple[str, Any]]:
    """Leaves of a field, without those under the used paths, which have indexes."""
    if not used:
        return list(leaves(value, name))
    if name in used:
        return []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, part in parts:
        path = f"{name}{SEPARATOR}{key}"
        inner = {other for other in used if other == path or other.startswith(path + SEPARATOR)}
        found += leaves_beside(part, path, inner) if inner else list(leaves(part, path))
    return found


def is_kept(text: str, kept: Iterable[str]) -> bool:
    return any(text.strip() in other for other in kept)


def unsettled(unused: Counter[str], ignored: Iterable[str]) -> Counter[str]:
    """Those unused fields that a task rests on and params.yaml does not name."""
    names = set(ignored)
    return Counter({path: count for path, count in unused.items() if _carries_task(path) and not names & _names(path)})


def remedy(path: str) -> str:
    """The line of params.yaml that settles a field of this name."""
    name = _last(path)
    inner = SEPARATOR in path
    ignore = f"`ignore: [{name}]` under this source in params.yaml trains without it"
    if inner or plain_name(name) in (*PICTURES, *REASONING, *PARTIAL_MASKS):
        return ignore
    return f"`use: [{name}]` under this source in params.yaml puts it before the question, {ignore}"


def _carries_task(path: str) -> bool:
    """Whether a task rests on a field of the record, or of its messages; what lies in other objects is a note."""
    first, *rest = map(plain_name, path.split(SEPARATOR))
    if rest and first in MESSAGES:
        return rest[-1] in (*CONTEXT, *PICTURES, *REASONING, *PARTIAL_MASKS)
    return first in TASK_FIELDS


def _names(path: str) -> set[str]:
    """Under which a path can be ignored."""
    return {path, _last(path), path.split(SEPARATOR)[0]}


def _last(path: str) -> str:
    return path.rsplit(SEPARATOR, 1)[-1]
