"""Templates that fail, lie or attack: one line, soon."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from inference_pio.errors import ChatTemplateError, UsageError
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.tokenizer import Tokenizer

Vocabularies = dict[str, dict[str, Any]]
HI = [{"role": "user", "content": "Hi"}]


def _render(vocabularies: Vocabularies, source: str) -> str:
    metadata = {**vocabularies["stories"], "tokenizer.chat_template": source}
    return ChatTemplate(Tokenizer.from_gguf(metadata, Path("m.gguf")), "m.gguf").render(HI)


def test_the_template_refuses_in_its_own_words(vocabularies: Vocabularies) -> None:
    with pytest.raises(UsageError, match="refuses the messages: only two roles, please"):
        _render(vocabularies, "{{ raise_exception('only two\n roles, please') }}")


FAILING = {
    "syntax": ("{% if %}", "line 1: "),
    "unknown tag": ("a\n{% nope %}", "line 2: "),
    "unknown filter": ("{{ 1 | nope }}", "nope"),
    "nested": ("{{ " + "(" * 6000 + "1" + ")" * 6000 + " }}", "m.gguf: chat template: "),
    "large": ("x" * (1 << 20) + "x", "has 1048577 characters, more than 1048576"),
    "undefined": ("{{ messages[0].a.b }}", "fails on these messages: .* has no attribute"),
    "types": ("{{ 1 + 'a' }}", "fails on these messages"),
    "division": ("{{ 1 // 0 }}", "fails on these messages"),
    "range": ("{% for i in range(10000000) %}{% endfor %}", "fails on these messages|forbids"),
    "endless": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "loop rounds"),
    "macros": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "loop rounds|takes more",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "needs too much: RecursionError"),
    "output": ("{% for i in range(9000) %}{{ 'x' * 1000 }}{% endfor %}", "writes more than 8000000 characters"),
    "times": ("{{ 'x' * 10 ** 10 }}", "makes a text or list of more than 8000000"),
    "list": ("{{ ([0] * 10 ** 9) | length }}", "makes a text or list"),
    "doubling": ("{% set n = namespace(s='xx') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
                 "makes a text or list"),
    "adding": ("{% set n = namespace(s='xx') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}{% endfor %}",
               "makes a text or list"),
    "power": ("{{ 10 ** (10 ** 10) }}", "too high a power"),
    "squaring": ("{% set n = namespace(s=3) %}{% for i in range(60) %}{% set n.s = n.s * n.s %}{% endfor %}",
                 "makes a text or list|too high"),
    "width": ("{{ '%999999999d' % 1 }}", "too great a width"),
    "escape by class": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "sandbox forbids|has no attribute"),
    "escape by globals": ("{{ raise_exception.__globals__ }}{{ cycler.__init__.__globals__.os }}", "forbids|unsafe"),
    "escape by format": ("{{ '{0.__class__.__mro__}'.format(messages) }}", "forbids"),
    "change": ("{{ messages.append(1) }}", "forbids"),
    "namespace": ("{% set n = namespace(__class__=1) %}", "forbids: a namespace cannot hold '__class__'"),
    "dict": ("{{ dict.__mro__ }}{{ dict.mro() }}", "forbids|has no attribute"),
    "include": ("{% include '/etc/passwd' %}", "fails on these messages"),
}  # fmt: skip


SLOW = ("macros", "endless")  # they use up the loop rounds they are allowed


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in FAILING]
)
def test_one_line_soon(case: str, vocabularies: Vocabularies) -> None:
    source, message = FAILING[case]
    start = time.monotonic()
    with pytest.raises(ChatTemplateError, match=message) as caught:
        _render(vocabularies, source)
    assert time.monotonic() - start < 20
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_templates_may_do(vocabularies: Vocabularies) -> None:
    assert (
        _render(
            vocabularies, "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        )
        == "01"
    )
    assert _render(vocabularies, "{% generation %}a{{ messages[0].content }}{% endgeneration %}b") == "aHib"
    assert _render(vocabularies, "{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert _render(vocabularies, "{{ [1] | tojson(indent=1) }}") == "[\n 1\n]"
    assert _render(vocabularies, "{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert _render(vocabularies, "{{ dict(a=1).a }}{{ dict.fromkeys('b', 2).b }}") == "12"
    assert (
        _render(vocabularies, "{{ '%s-%03d' % ('a', 7) }}{{ 2 ** 10 }}{{ 'a' ~ 1 ~ none }}")
        == "a-0071024a1None"
    )
    assert _render(vocabularies, "{% set n = namespace(self=1) %}{% set n.x = 2 %}{{ n.self + n.x }}") == "3"
    assert (
        _render(vocabularies, "  {% if true %}\n  x\n  {% endif %}\n{{ bos_token }}{{ eos_token }}\n")
        == "  x\n<s></s>"
    )
