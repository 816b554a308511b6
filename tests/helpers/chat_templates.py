"""Small chat templates, each of which does one thing that published ones do, some that are refused, and rows as text."""

from tuneline.formats.example import IGNORE_INDEX

CHATML = """{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
HYBRID = """{%- set ns = namespace(last=0) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- set content = m.content -%}
{%- if m.role == 'assistant' -%}
{%- if loop.index0 > ns.last -%}
{{- '<think>\n' + (m.reasoning_content or '').strip('\n') + '\n</think>\n\n' -}}
{%- endif -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{- content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}"""
"""As Qwen3: an empty thought where thinking is off, and history without thoughts."""
FORGETS = """{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{- m.content -}}
{%- elif m.role == 'user' -%}{{- '<|user|>' + m.content -}}
{%- else -%}{{- '<|assistant|>' + m.content.split('</think>')[-1] + eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|><think>\n' -}}{%- endif -%}"""
"""As DeepSeek-R1's distillates: its generation prompt opens a thought, and no written answer has one."""
ENDLESS = """{{- '[gMASK]<sop>' -}}
{%- for m in messages -%}{{- '<|' + m.role + '|>\n' + m.content -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""
"""As GLM-4: an answer ends where the next role begins."""
NO_SYSTEM = """{%- if messages[0].role == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}
{{- bos_token -}}
{%- for m in messages -%}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}"""
"""As Gemma: it strips, and has no system prompt."""
WORDS = """{%- if messages[0].role != 'system' -%}{{- 'System: Be kind.\n\n' -}}{%- endif -%}
{%- for m in messages -%}
{{- m.role | capitalize + ': ' + m.content + (eos_token if m.role == 'assistant' else '') + '\n\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"""
"""Roles in ordinary words, and a default system prompt."""
PARTS = """{%- for m in messages -%}
{{- '<|im_start|>' + m.role + ': ' -}}
{%- for part in m.content -%}{%- if part.type == 'text' -%}{{- part.text -}}{%- endif -%}{%- endfor -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant:' -}}{%- endif -%}"""
"""As those of models that see: a content is a list of parts."""
DATED = "{{- '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\n' -}}\n" + CHATML
FOLLOWED = {
    "ChatML": CHATML, "hybrid": HYBRID, "forgets": FORGETS, "endless": ENDLESS, "no system": NO_SYSTEM, "words": WORDS,
    "parts": PARTS, "dated": DATED,
}  # fmt: skip
REFUSED = {
    "capitals": (CHATML.replace("m.content", "m.content | upper"), "leaves out texts of a plain conversation"),
    "one turn": (
        CHATML.replace("for m in messages", "for m in messages[-1:]"),
        "leaves out texts of a plain conversation",
    ),
    "refusing": (
        "{{- raise_exception('Ask someone else') -}}" + CHATML,
        "the base's chat template refuses it: Ask someone else",
    ),
    "twice": (CHATML.replace("m.content", "m.content + m.content"), "writes message 1, an answer, 2 times"),
    "another prompt": (
        CHATML.replace("'<|im_start|>assistant\n' -}}{%- endif", "'<|im_start|>assistant says\n' -}}{%- endif"),
        "training and generation would not see the same prompt",
    ),
}
"""Templates that are not followed, with what is said of them."""


def bracketed(row, tokenizer) -> str:
    """The row as text, with what is learnt in brackets."""
    pieces, learning = [], False
    groups: list[tuple[bool, list[int]]] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (token, IGNORE_INDEX)
        learns = label != IGNORE_INDEX
        if not groups or groups[-1][0] != learns:
            groups.append((learns, []))
        groups[-1][1].append(token)
    for learning, ids in groups:
        text = tokenizer.decode(ids)
        pieces.append(f"[{text}]" if learning else text)
    return "".join(pieces)
