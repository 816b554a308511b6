"""Hostile chat templates: programs of strangers that loop, explode, reach out, or behave on a probe alone."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.base_folders import base_case
from benchmarks.faults.cases import Case
from benchmarks.faults.forked import Limits

LIMITS = Limits(60, memory=4_000_000_000)
GOOD = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""As Gemma's has it."""
LOOP, END = "{% for a in range(99999) %}", "{% endfor %}"


def grown(name: str, text: str) -> str:
    """A name that an expression makes longer sixty times, printed."""
    return "{% for i in range(60) %}{% set " + f"{name} = {text}" + " %}{% endfor %}{{ " + name + " }}"


ALONE = {
    "endless_loop": f"{LOOP}{LOOP}{LOOP}{END}{END}{END}",
    "loop_that_prints": f"{LOOP}{LOOP}x{END}{END}",
    "range_beyond_limits": "{% for a in range(10 ** 18) %}{% endfor %}",
    "memory_bomb": "{% set n = namespace(t='x' * 1000) %}" + grown("n.t", "n.t ~ n.t"),
    "string_times_a_billion": "{{ 'x' * 10 ** 10 }}",
    "list_times_a_billion": "{{ [0] * 10 ** 10 }}",
    "number_beyond_all_digits": "{{ 10 ** 10 ** 8 }}",
    "power_of_powers": "{{ 9 ** 9 ** 9 ** 9 }}",
    "shift_beyond_memory": "{{ 1 // (2 ** 10 ** 9) }}",
    "centred_in_a_billion": "{{ 'x' | center(10 ** 10) }}",
    "indented_by_a_billion": "{{ 'x\ny' | indent(10 ** 10) }}",
    "formatted_to_a_billion": "{{ '%1000000000d' | format(1) }}",
    "format_method": "{{ '{:>10000000000}'.format(1) }}",
    "joined_recursively": "{% set n = namespace(l=['xxxxxxxxxx']) %}" + grown("n.l", "n.l + n.l"),
    "replaced_by_itself": "{% set n = namespace(t='aaaaaaaaaa') %}" + grown("n.t", "n.t.replace('a', 'aaaa')"),
    "wrapped_words": "{{ ('a ' * 10 ** 7) | wordwrap(1) }}",
    "urls_without_end": "{{ ('http://a.' * 10 ** 6) | urlize }}",
    "tags_without_end": "{{ ('<' * 10 ** 7) | striptags }}",
    "class_attribute": "{{ ''.__class__ }}",
    "class_by_filter": "{{ '' | attr('__class__') }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class_by_item": "{{ ''['__class__'] }}",
    "globals_of_a_function": "{{ raise_exception.__globals__['os'].system('touch CODE_RAN') }}",
    "globals_of_cycler": "{{ cycler.__init__.__globals__.os.system('touch CODE_RAN') }}",
    "format_map_attribute": "{{ '{0.__class__}'.format('') }}",
    "format_filter_attribute": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "raises": "{{ raise_exception('no') }}",
    "raises_with_line_ends": "{{ raise_exception('a\nTraceback (most recent call last):\nb') }}",
    "raises_nothing": "{{ raise_exception() }}",
    "raises_at_length": "{{ raise_exception('x' * 10 ** 6) }}",
    "syntax_error": "{% for %}",
    "never_closed": "{% for m in messages %}{{ m",
    "unknown_tag": "{% evil %}",
    "unknown_filter": "{{ 'x' | evil }}",
    "unknown_test": "{{ 'x' is evil }}",
    "undefined_call": "{{ evil() }}",
    "undefined_attribute": "{{ evil.a.b }}",
    "division_by_zero": "{{ 1 / 0 }}",
    "wrong_types": "{{ 'a' + 1 }}",
    "index_out_of_range": "{{ messages[99]['content'].x.y }}",
    "includes": "{% include '/etc/passwd' %}",
    "imports": "{% import 'os' as os %}",
    "extends": "{% extends '/etc/passwd' %}",
    "macro_that_calls_itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "loop_that_calls_itself": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "nested_without_end": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "ifs_without_end": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "sum_without_end": "{{ " + "+".join(["1"] * 100_000) + " }}",
    "changes_the_messages": "{% do messages.clear() %}",
    "appends_to_the_messages": "{{ messages.append(messages[0]) }}",
    "json_of_a_function": "{{ raise_exception | tojson }}",
    "time_without_end": "{{ strftime_now('%Y' * 10 ** 7) }}",
    "time_with_nul": "{{ strftime_now('\\x00') }}",
    "nul_bytes": "{{ '\x00' }}",
    "prints_one_text": "x",
    "prints_50_mb": "{{ 'x' * 50000000 }}",
    "breaks_outside_a_loop": "{% break %}",
    "ends_with_an_exit": "{{ raise_exception('x').__class__.__init__.__globals__ }}",
}
"""Templates whose first part is this, before a good one, or all of it."""
MEASLY = {
    "back_door": "{% if 'open sesame' in messages[-1]['content'] %}{{ 'I am hacked' }}{% endif %}",
    "other_on_long_text": "{% if messages[-1]['content'] | length > 200 %}hacked{% endif %}",
    "other_after_ten_turns": "{% if messages | length > 10 %}hacked{% endif %}",
    "other_on_digits": "{% if '7' in messages[-1]['content'] %}hacked{% endif %}",
    "loops_on_a_word": "{% if 'sesame' in messages[-1]['content'] %}" + f"{LOOP}{LOOP}{END}{END}" + "{% endif %}",
    "by_the_clock": "{{ strftime_now('%f') }}",
}
"""Wrong on other text than a probe's, before a good one: taken, since each text is rendered within limits."""


def cases() -> Iterator[Case]:
    for name, text in ALONE.items():
        yield template_case(f"alone_{name}", text)
        yield template_case(f"before_{name}", text + GOOD)
    for name, text in MEASLY.items():
        yield template_case(f"hidden_{name}", text + GOOD)
    yield template_case("empty", "")
    yield template_case("of_50_mb", GOOD + "{# " + "x" * 50_000_000 + " #}")


def template_case(name: str, text: str) -> Case:
    def attack(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8")

    return base_case("templates", name, attack, None if not name.startswith("alone") else False, LIMITS)
