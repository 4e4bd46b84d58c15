"""Chat templates: rendered as transformers renders them, inside a sandbox with a budget."""

import json
from datetime import datetime
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import text_vocabularies as make
from vivace.text.build import build_template, build_tokenizer
from vivace.text.template import ChatTemplate
from vivace.types.errors import RequestError, TokenizerError
from vivace.types.request import ChatMessage

TOKENIZER = build_tokenizer(make.byte_level())
HI = [ChatMessage("user", "hi")]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"é": [1, None, True, 2.5]}}}]
# Constructs of published templates: namespaces, macros, loop controls, generation blocks, tool calls as JSON.
RICH = """
{%- macro turn(role, text) %}{{ '<|im_start|>' + role + '\n' + text | trim ~ '<|im_end|>' }}
{% endmacro -%}
{%- set ns = namespace(first=true, seen=[]) -%}
{%- if tools %}{% for tool in tools %}{{ tool | tojson }}{% if not loop.last %},{% endif %}{% endfor %}
{{ tools[0] | tojson(indent=2) }}{% endif -%}
{%- for message in messages %}
    {%- if message.role == 'system' and not ns.first %}{% continue %}{% endif %}
    {%- if loop.index0 > 5 %}{% break %}{% endif %}
    {%- set ns.first = false %}
    {%- generation %}{{ turn(message['role'], message.content) }}{% endgeneration %}
    {%- if '<think>' in message.content %}{{ message.content.split('</think>')[-1].lstrip('\n') }}{% endif %}
{%- endfor %}
{{- messages | map(attribute='role') | join(',') }}{{ messages | selectattr('role', 'eq', 'user') | list | length }}
{%- for key, value in messages[0].items() | sort %}
    {{- key.upper() }}={{ value[:3] }}{{ '%03d' % loop.index }}{% endfor %}
{%- set block %}{{ bos_token }}-{{ eos_token }}{% endset %}{{ block | indent(2, first=true) }}
{{ (messages | length) * 2 + 1 }}{{ [1] + [2] }}{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ range(3) | list }}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def template(source: str, **options: Any) -> ChatTemplate:
    return ChatTemplate(source, TOKENIZER, **options)


def ordinary_jinja(source: str, **variables: Any) -> str:
    """The template without sandbox and budget, in the settings of transformers."""
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    source = source.replace("generation %}", "if true %}").replace("endif true", "endif")
    return environment.from_string(source).render(bos_token="<|im_start|>", eos_token="<|im_end|>", **variables)


RICH_TEMPLATE = template(RICH)
MESSAGES = st.lists(
    st.builds(ChatMessage, st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=20)),
    min_size=1,
    max_size=8,
)


@given(messages=MESSAGES, prompt=st.booleans(), tools=st.sampled_from([None, TOOLS]))
def test_rendering_is_that_of_ordinary_jinja(messages: list[ChatMessage], prompt: bool, tools: Any) -> None:
    got = RICH_TEMPLATE.render(messages, add_generation_prompt=prompt, tools=tools)
    plain = [{"role": message.role, "content": message.content} for message in messages]
    assert got == ordinary_jinja(RICH, messages=plain, add_generation_prompt=prompt, tools=tools)


def test_smollm2_renders_as_published(smollm2_template: ChatTemplate) -> None:
    assert smollm2_template.render(HI) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smollm2_template.stop_strings == ()


def test_a_model_without_template_gets_the_plain_one(gemma3_template: ChatTemplate) -> None:
    messages = [ChatMessage("system", "Be kind."), ChatMessage("user", " hi "), ChatMessage("assistant", "Hello!")]
    assert gemma3_template.render([*messages, HI[0]]) == (
        "<bos>System: Be kind.\nUser: hi\nAssistant: Hello!\nUser: hi\nAssistant:"
    )
    assert gemma3_template.render(messages, add_generation_prompt=False).endswith("\nAssistant: Hello!\n")
    assert "\nUser:" in gemma3_template.stop_strings


def test_extra_variables_and_the_clock_reach_the_template() -> None:
    made = template("{{ strftime_now('%d %b %Y') }} {{ mood }}", now=lambda: datetime(2024, 7, 26))
    assert made.render(HI, mood="calm") == "26 Jul 2024 calm"


def test_a_template_can_refuse_a_conversation() -> None:
    made = template("{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}ok")
    assert made.render(HI) == "ok"
    with pytest.raises(RequestError, match="no system role"):
        made.encode_chat([ChatMessage("system", "x")])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [ChatMessage("", "x")],
        [ChatMessage("user\n", "x")],
        [ChatMessage("<|im_end|>", "")],
        [ChatMessage("user", "\ud800")],
    ],
)
def test_malformed_conversations_are_the_callers_fault(messages: list[ChatMessage]) -> None:
    for call in (template("x").render, template("x").encode_chat):
        with pytest.raises(RequestError) as refusal:
            call(messages)
        assert refusal.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages",
        "{% nonsense %}",
        "{{ x | no_such_filter }}",
        "{{ (" * 3000,
        "x" * ((1 << 20) + 1),
    ],
)
def test_a_template_that_is_no_jinja_is_refused_when_built(source: str) -> None:
    with pytest.raises(TokenizerError, match="chat template is broken"):
        template(source)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__closure__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages.append(1) }}",
    "{{ 'x'.format(1) }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ ''.encode() }}",
    "{% include 'secret' %}",
    "{% import 'os' as os %}",
    "{{ lipsum.__globals__ }}",
    "{{ messages | attr('__class__') }}",
    "{{ joiner()._JoinerBase }}{{ joiner().__init__.__globals__['x'] }}",
]
NESTED = "{% set ns = namespace(s=[1]) %}{% for a in range(64) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
BOMBS = [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
    "{{ range(1000000000) | list }}",
    "{{ 'a' * 10000000000 }}",
    "{{ [0] * 10000000000 }}",
    "{{ 10000000000 * 'a' }}",
    "{{ 10 ** 10000000000 }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10000000000, 1) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ 'a'.center(10000000000) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ 'a' | indent(10000000000, true) | length + 'x' }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for a in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for a in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for a in range(64) %}{% set ns.s = ns.s | replace('a', 'aa') %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for a in range(64) %}{% set ns.s = ns.s.replace('a', 'aa') %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for a in range(64) %}{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for a in range(64) %}{% set ns.s = ns.s.join([ns.s, ns.s, ns.s]) %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for a in range(64) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}"
    "{% set ns.s = x %}{% endfor %}",
    NESTED + "{{ ns.s }}",
    NESTED + "{{ ns.s | tojson }}",
    NESTED + "{{ ns.s | string }}",
    NESTED + "{{ ns.s ~ 'x' }}",
    "{% set ns = namespace(i=10) %}{% for a in range(64) %}{% set ns.i = ns.i * ns.i %}{% endfor %}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{% set a = f(n - 1) %}{% set a = f(n - 1) %}{% endif %}{% endmacro %}{{ f(64) }}",
    "{% for a in [[[[]]]] * 9 recursive %}{{ loop([a] * 9) }}{% endfor %}",
    "{% for a in range(100000) %}" + "x" * 1000 + "{% endfor %}",
    "{{ batch(1) }}{{ [1] | batch(10000000000, 'x') | list }}",
    "{% set x = messages | tojson(indent=10000000000) %}{{ nothing.at.all }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_never_reaches_the_interpreter(source: str) -> None:
    try:
        assert template(source).render(HI) == ""  # what a template may not touch is undefined, and so writes nothing
    except TokenizerError as error:
        assert "chat template is broken" in error.what


@pytest.mark.parametrize("source", BOMBS)
def test_a_malicious_template_ends_in_one_clear_error(source: str) -> None:
    with pytest.raises(TokenizerError, match="chat template is broken"):
        template(source).render(HI)


def test_long_conversations_are_within_the_budget() -> None:
    messages = [ChatMessage(("user", "assistant")[i % 2], "word " * 50) for i in range(4000)]
    assert len(template(make.CHATML).render(messages)) > 1_000_000


@given(seen=st.text(max_size=10))
def test_json_in_templates_is_json(seen: str) -> None:
    assert json.loads(template("{{ messages[0].content | tojson }}").render([ChatMessage("user", seen)])) == seen


def test_templates_come_from_either_place_of_a_hugging_face_folder() -> None:
    document = make.tokenizer_json()
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    for changes, expected in (
        ({"chat_template": "A"}, "A"),
        ({"config": {"chat_template": "B"}}, "B"),
        ({"config": {"chat_template": named}}, "D"),
        ({"config": {"chat_template": named[:1]}}, "User: hi\nAssistant:"),
        ({}, "User: hi\nAssistant:"),
    ):
        assert build_template(make.hugging_face(document, **changes), TOKENIZER).render(HI).endswith(expected)


def test_tools_nested_beyond_reason_are_the_callers_fault() -> None:
    tools: Any = []
    for _ in range(100_000):
        tools = [tools]
    for call in (template("x").render, template("x").encode_chat):
        with pytest.raises(RequestError, match="nested too deeply"):
            call(HI, tools=tools)
