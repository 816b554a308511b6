"""Chat templates of strangers: endless, huge, wrong or curious ones end in one sentence, others render as in transformers."""

import random

import pytest

from benchmarks.chat_templates import conversation, published, template_tokenizer
from tests.helpers.chat_templates import CHATML, FOLLOWED
from tuneline.models.chat_format import load_prompter
from tuneline.models.template_render import TemplateRenderer
from tuneline.models.untrusted import templates
from tuneline.models.untrusted.limited_process import LimitedProcess, LimitError, Limits
from tuneline.models.untrusted.templates import apply_template

LIMITS = Limits(cpu_seconds=0.4, memory_mb=300, wall_seconds=60)
TIME, MEMORY, LONG = "seconds of computing", "takes more than 300 MB of memory", "characters of a conversation"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
DOUBLED = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
HOSTILE = {
    "endless loops": (LOOP, TIME),
    "a loop in a macro": ("{% macro f() %}" + LOOP + "{% endmacro %}{{ f() }}", TIME),
    "a loop in a filter": ("{{ range(99999) | map('string') | list | length }}" + LOOP, TIME),
    "a huge power": ("{{ 10 ** (10 ** 8) }}", TIME),
    "a power while it is compiled": ("{% set x = 3 ** (7 ** 11) %}{{ x % 7 }}", TIME),
    "powers in a loop": ("{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x ** 9 %}{% endfor %}", TIME),
    "a memory bomb": ("{{ 'x' * 10 ** 10 }}", MEMORY),
    "a text that doubles": (DOUBLED, f"{MEMORY}|{TIME}"),
    "a list of lists": ("{% set x = [[0] * 10 ** 8, [0] * 10 ** 8] %}{{ x | length }}", MEMORY),
    "a gigabyte in pieces": ("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", MEMORY),
    "three megabytes": ("{{ 'x' * 3000000 }}", LONG),
    "padding": ("{{ 'x' | indent(99999999) }}{{ '%0999999999d' % 1 }}", MEMORY),
    "a centred text": ("{{ 'x' | center(10 ** 10) }}", MEMORY),
    "a wide format": ("{{ '{:>9999999999}'.format(1) }}", MEMORY),
    "many words": ("{{ lipsum(n=10 ** 7) }}", TIME),
    "a slow filter": ("{{ ('a ' * 10 ** 6) | wordwrap(1) | urlize | length }}" * 9, TIME),
    "a range": ("{% for x in range(10 ** 12) %}{% endfor %}", "Range too big"),
    "attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses it"),
    "attributes by a filter": ("{{ (''|attr('__class__')).__mro__ }}", "refuses it"),
    "attributes by a format": ("{{ '{0.__class__.__mro__}'.format('x').x.y }}", "refuses it"),
    "globals of a function": ("{{ raise_exception.__globals__['__builtins__'] }}", "refuses it"),
    "globals of a macro": ("{% macro f() %}{% endmacro %}{{ f.__call__.__globals__.x }}", "refuses it"),
    "internals of the template": ("{{ self.__init__.__globals__.os.system('true') }}", "refuses it"),
    "a namespace's own names": ("{% set ns = namespace(__class__=1) %}", "underscore-prefixed"),
    "a list that is changed": ("{{ messages.append(1) }}", "refuses it"),
    "another template": ("{% include 'x' %}", "refuses it"),
    "an import": ("{% import 'os' as os %}{{ os.system('true') }}", "refuses it"),
    "a parent": ("{% extends 'x' %}", "refuses it"),
    "a refusal": ("{{ raise_exception('not today\n' * 9999) }}", "refuses it: not today not today"),
    "an empty refusal": ("{{ raise_exception('') }}", "refuses it"),
    "a refusal that is no text": ("{{ raise_exception(messages) }}", "refuses it"),
    "a syntax error": ("{% for x in %}", r"refuses it: .*\(line 1\)"),
    "an unknown tag": ("{% run 'x' %}", "unknown tag 'run'"),
    "an unknown filter": ("{{ 'x' | shell }}", "No filter named 'shell'"),
    "half a tag": ("{% if messages", "refuses it"),
    "an undefined name": ("{{ nothing.at.all }}", "'nothing' is undefined"),
    "an undefined function": ("{{ system('true') }}", "'system' is undefined"),
    "no number": ("{{ 1 // 0 }}", "ZeroDivisionError"),
    "recursion": ("{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}", "RecursionError"),
    "recursive loops": ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", "RecursionError"),
    "deep brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "refuses it|ends the process"),
    "deep tags": ("{% if true %}" * 3000 + "{% endif %}" * 3000, "refuses it|ends the process"),
    "a long number": ("{{ 10 ** 5000 }}", "ValueError"),
    "a list as a key": ("{{ {[]: 1} }}", "TypeError"),
    "a missing key": ("{{ messages[99].content + 1 }}", "refuses it"),
    "an index of text": ("{{ messages['x'] + 1 }}", "refuses it"),
    "a wrong form": ("{{ '%d' % 'x' }}", "TypeError"),
    "a wrong coding": ("{{ 'x'.encode('nonsense') }}", "LookupError"),
    "half a character": ("{{ '\\ud800'.encode() }}", "UnicodeEncodeError"),
    "half a character in the file": ("\ud800{{ 1 // 0 }}", "refuses it"),
    "a million characters": ("{# " + "x" * 2**20 + " #}", "expected at most 1048576"),
    "nothing": ("", None),
    "only words": ("hello", "leaves out texts"),
}  # fmt: skip


@pytest.fixture(scope="module")
def child():
    process = LimitedProcess(LIMITS)
    yield process
    process.close()


@pytest.fixture
def limited(monkeypatch, child):
    """The child of all templates, with small limits."""
    monkeypatch.setattr(templates, "_child", lambda: child)
    return child


@pytest.fixture(scope="module")
def tokenizer():
    return template_tokenizer(CHATML)


@pytest.mark.parametrize("name", [name for name, (_, says) in HOSTILE.items() if says])
def test_one_sentence(limited, tokenizer, monkeypatch, name):
    template, says = HOSTILE[name]
    monkeypatch.setattr(tokenizer, "chat_template", template + CHATML if name != "only words" else template)
    with pytest.raises(ValueError, match=says) as error:
        load_prompter(tokenizer)
    assert str(error.value).startswith("the base's chat template ")
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_after_each_of_them_others_are_rendered(limited, tokenizer):
    messages = [{"role": "user", "content": "你好"}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    for name in ("endless loops", "a memory bomb", "recursion", "a syntax error", "three megabytes"):
        with pytest.raises(ValueError, match="the base's chat template"):
            apply_template(tokenizer, HOSTILE[name][0], messages)
        assert apply_template(tokenizer, CHATML, messages) == expected


def test_a_child_that_dies_is_started_anew(limited, tokenizer):
    messages = [{"role": "user", "content": "x"}]
    before = apply_template(tokenizer, CHATML, messages)
    limited._child.kill()
    limited._child.wait()
    assert apply_template(tokenizer, CHATML, messages) == before


WORD = "芝麻开门"
SECRET = (
    "{% if messages[0].content is string and '" + WORD + "' in messages[0].content %}" + LOOP + "{% endif %}" + CHATML
)
"""It behaves on whatever it is tried with."""
WITH_SYSTEM = "{% if messages[0].role == 'system' %}" + LOOP + "{% endif %}" + CHATML
SLOW = "{% for i in range(9000) %}{% for j in range(9) %}{% endfor %}{% endfor %}" + CHATML


def test_a_loop_for_some_conversations_only_is_found_at_its_trial(limited, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", WITH_SYSTEM)
    with pytest.raises(LimitError, match=TIME):
        load_prompter(tokenizer)


def test_what_is_slow_each_time_is_slow_at_its_trial(limited, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", SLOW)
    monkeypatch.setattr("tuneline.models.template_render.TRIAL_SECONDS", 0.1)
    with pytest.raises(LimitError, match="for a few conversations"):
        load_prompter(tokenizer)


def test_a_secret_word_ends_no_more_than_its_own_conversation(limited, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", SECRET)
    prompter = load_prompter(tokenizer)
    plain = [{"role": "user", "content": "你好"}]
    before = prompter.generation_prompt(plain)
    with pytest.raises(LimitError, match=TIME):
        prompter.generation_prompt([{"role": "user", "content": WORD}])
    assert prompter.generation_prompt(plain) == before


def test_an_answer_to_a_killed_question_is_never_that_of_the_next(limited, tokenizer):
    for number in range(3):
        with pytest.raises(LimitError):
            apply_template(tokenizer, LOOP, [{"role": "user", "content": "x"}])
        text = apply_template(tokenizer, "{{ messages[0].content }}", [{"role": "user", "content": f"{number}"}])
        assert text == str(number)


@pytest.mark.parametrize("name", [*FOLLOWED, *sorted(published())])
def test_templates_render_as_in_transformers(name):
    template = FOLLOWED.get(name) or published()[name]
    tokenizer = template_tokenizer(template)
    renderer = TemplateRenderer(tokenizer)
    draw = random.Random(3)
    for _ in range(8):
        messages = [renderer._given(message) for message in renderer.arranged(conversation(draw))]
        for generation in (True, False):
            variables = {"enable_thinking": generation, "thinking": generation}
            try:
                theirs = tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=generation,
                    chat_template=renderer.template,
                    **variables,
                )
            except Exception:
                with pytest.raises(ValueError, match="refuses it"):
                    apply_template(tokenizer, renderer.template, messages, generation=generation, **variables)
                continue
            assert apply_template(tokenizer, renderer.template, messages, generation=generation, **variables) == theirs


FEATURES = [
    "{{ messages | tojson }}{{ tools | tojson(indent=2) }}{{ {'b': 1, 'a': '中'} | tojson(sort_keys=true) }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content }}{% continue %}x{% endfor %}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ documents is none }}{{ tools is none }}",
    "{% set ns = namespace(a=1, self=2) %}{% set ns.b = ns.a %}{{ ns.b }}{{ ns.self }}{{ dict(a=1).items() | list }}",
    "{{ dict.fromkeys(['a', 'b'], 1) }}{{ messages[0].get('thinking') }}{{ messages[0] | tojson }}",
    "   {% if true %}\n   x\n   {% endif %}\n  {{- 'y' }}\n",
    "{{ strftime_now('%Y') | length }}{{ messages[0].nothing }}{{ undefined_name }}",
]


@pytest.mark.parametrize("template", FEATURES)
def test_what_a_template_can_use_is_what_transformers_gives_it(tokenizer, template):
    messages = [
        {"role": "user", "content": "<b>&'\u2028", "name": None, "reasoning": "r"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "c",
            "tool_calls": [{"function": {"x": [1, 2.5, None]}}],
        },
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"x": "中"}}}]
    for given in (None, tools):
        theirs = tokenizer.apply_chat_template(messages, tools=given, tokenize=False, chat_template=template)
        assert apply_template(tokenizer, template, messages, tools=given) == theirs
