"""Small chat templates that write tool calls, each as published ones do whose text is not ours to ship."""

_TURN = "{%- for m in messages -%}"
_END = "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
_OTHERS = (
    "{%- if m.role == 'user' -%}{{- '<|user|>\n' + m.content -}}"
    "{%- elif m.role == 'tool' -%}{{- '<|observation|>\n' + m.content -}}"
    "{%- elif not m.tool_calls -%}{{- '<|assistant|>\n' + m.content -}}"
)
GLM4 = (
    _TURN + _OTHERS + "{%- else -%}{%- for c in m.tool_calls -%}"
    "{{- '<|assistant|>' + c.function.name + '\n' + c.function.arguments | tojson(ensure_ascii=False) -}}"
    "{%- endfor -%}{%- endif -%}" + _END
)
"""A name and a line of JSON, with nothing around them."""
CHATGLM3 = (
    _TURN + _OTHERS + "{%- else -%}{%- for c in m.tool_calls -%}"
    "{{- '<|assistant|>' + c.function.name + '\n```python\ntool_call(' -}}"
    "{%- for k, v in c.function.arguments.items() -%}{{- k + '=' + v | pprint -}}"
    "{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}{%- endfor -%}{{- ')\n```' -}}"
    "{%- endfor -%}{%- endif -%}" + _END
)
MISTRAL = (
    "{{- bos_token -}}{%- if tools -%}{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}"
    + _TURN
    + "{%- if m.role == 'user' -%}{{- '[INST] ' + m.content + '[/INST]' -}}"
    "{%- elif m.role == 'tool' -%}{{- '[TOOL_RESULTS] ' + m.content + '[/TOOL_RESULTS]' -}}"
    "{%- elif m.tool_calls -%}{{- '[TOOL_CALLS] [' -}}{%- for c in m.tool_calls -%}"
    """{{- '{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson + ', "id": "' + c.id + '"}'"""
    " -}}{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}{%- endfor -%}{{- ']' + eos_token -}}"
    "{%- else -%}{{- ' ' + m.content + eos_token -}}{%- endif -%}{%- endfor -%}"
)
MINISTRAL = MISTRAL.replace("[TOOL_CALLS] [", "").replace("{{- ']' + eos_token", "{{- eos_token").replace(
    """'{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson + ', "id": "' + c.id + '"}'""",
    "'[TOOL_CALLS]' + c.function.name + '[ARGS]' + c.function.arguments | tojson",
).replace("{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}", "")  # fmt: skip
_TOOLS = "{%- if tools -%}{{- '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' -}}{%- endif -%}"
HERMES = (
    _TOOLS + _TURN + "{{- '<|im_start|>' + m.role + '\n' + m.content -}}{%- for c in m.tool_calls or [] -%}"
    "{{- '<tool_call>\n' + {'arguments': c.function.arguments, 'name': c.function.name} | tojson + '\n</tool_call>' -}}"
    "{%- if not loop.last -%}{{- '\n' -}}{%- endif -%}{%- endfor -%}{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
CALLING = {"GLM-4": GLM4, "ChatGLM3": CHATGLM3, "Mistral": MISTRAL, "Ministral": MINISTRAL, "Hermes": HERMES}
