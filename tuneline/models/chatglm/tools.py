"""ChatGLM3's tools as text: definitions in a system prompt, and a call as a line of Python.

As build_chat_input of THUDM/chatglm3-6b's tokenizer has them, and the finetune page of its repository, where a call is an
assistant's turn with the function's name beside the role: `<|assistant|>get_weather`.
"""

import json
from collections.abc import Sequence
from typing import Any

from tuneline.formats.records import ToolCall

PROMPT = "Answer the following questions as best as you can. You have access to the following tools:"


def tools_text(tools: Sequence[dict[str, Any]]) -> str:
    """The system prompt of these definitions, which are bare there: without {"type": "function", "function": …} around each."""
    bare = [tool.get("function", tool) for tool in tools]
    return f"{PROMPT}\n{json.dumps(bare, indent=4, ensure_ascii=False)}"


def call_text(call: ToolCall) -> str:
    """What follows the function's name: Python that is never run.

    Raises ValueError for an argument whose name is none in Python.
    """
    wrong = [name for name in call["arguments"] if not name.isidentifier()]
    if wrong:
        raise ValueError(
            f"ChatGLM3 writes the arguments of a call in Python, and {wrong[0]!r} is no name there: rename it, or leave the "
            "record out (data.exclude in params.yaml)"
        )
    arguments = ", ".join(f"{name}={value!r}" for name, value in call["arguments"].items())
    return f"```python\ntool_call({arguments})\n```"
