"""Random dialogues with tools, the same with markers in every text, and a template as Mistral's."""

import random
from typing import Any

MISTRAL = """{{- bos_token -}}
{%- set ns = namespace(last=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' -}}
{%- elif m.role == 'user' -%}
{%- if tools and loop.index0 == ns.last -%}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}
{{- '[INST]' + m.content + '[/INST]' -}}
{%- elif m.tool_calls is defined and m.tool_calls -%}
{{- '[TOOL_CALLS][' -}}
{%- for call in m.tool_calls -%}
{%- if call.id | length != 9 -%}{{- raise_exception('Tool call IDs should have length 9!') -}}{%- endif -%}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + ('' if loop.last else ', ') -}}
{%- endfor -%}
{{- ']' + eos_token -}}
{%- elif m.role == 'assistant' -%}{{- m.content + eos_token -}}
{%- elif m.role == 'tool' -%}
{{- '[TOOL_RESULTS]{"content": "' + m.content + '", "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' -}}
{%- endif -%}
{%- endfor -%}"""
"""It puts tools before the last question, and asks for ids of nine characters."""
AS_TEXT = """{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content -}}
{%- for call in m.tool_calls or [] -%}
{{- '<tool_call>' + call.function.name + '\\n' + call.function.arguments + '</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
"""It takes arguments as text, and no definitions."""


def definition(name: str, text: str = "城市") -> dict[str, Any]:
    city = {"type": "string", "description": text}
    parameters = {"type": "object", "properties": {"city": city, "days": {"type": "integer"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def tools_of(draw: random.Random) -> list[dict[str, Any]]:
    return [definition(f"get_{number}", draw.choice(("查询", "Look up."))) for number in range(draw.randint(1, 3))]


def dialogue(draw: random.Random, several: bool = True, says: bool = True, thinks: bool = False) -> list[Any]:
    """Messages of one to three exchanges, with none, one or two rounds of calls in each; it may end with a call.

    `several` is whether there may be several calls at once, `says` whether words may stand before them.
    """
    messages: list[Any] = [{"role": "system", "content": "简短"}] if draw.random() < 0.5 else []
    for _ in range(draw.randint(1, 3)):
        messages.append({"role": "user", "content": draw.choice(("天气？", "How is  it?\n", "q 1"))})
        for _ in range(draw.choice((0, 1, 1, 2))):
            calls = [_call(draw) for _ in range(draw.choice((1, 1, 2)) if several else 1)]
            said = draw.choice(("", "", "我查一下。")) if says else ""
            messages.append({"role": "assistant", "content": said, "tool_calls": calls})
            messages += [{"role": "tool", "content": draw.choice(('{"temp": 3}', "晴", "a\nb"))} for _ in calls]
        messages.append({"role": "assistant", "content": draw.choice(("三度。", "Fine.\n\n1. x", "12"))})
    while draw.random() < 0.5 and any("tool_calls" in message for message in messages):
        del messages[-1]
        while messages[-1]["role"] == "tool":
            del messages[-1]
        if "tool_calls" in messages[-1]:
            break
        while messages[-1]["role"] != "assistant":
            del messages[-1]
    if thinks:
        for message in messages:
            if message["role"] == "assistant" and draw.random() < 0.5:
                message["reasoning"] = "先想。"
    return messages


def attacked(value: Any, markers: str) -> Any:
    """A value with markers in each of its texts but for names, roles and types."""
    if isinstance(value, str):
        return f"{value}{markers}x" if value else value
    if isinstance(value, list):
        return [attacked(one, markers) for one in value]
    if isinstance(value, dict):
        kept = ("role", "name", "type", "required")
        return {name: one if name in kept else attacked(one, markers) for name, one in value.items()}
    return value


def _call(draw: random.Random) -> dict[str, Any]:
    arguments = draw.choice(
        ({"city": "北京", "days": 2}, {"city": "a \"b\" 'c'\n"}, {"city": "x"}, {"list": [1, None, 0.5, True]})
    )
    return {"name": f"get_{draw.randint(0, 2)}", "arguments": arguments}
