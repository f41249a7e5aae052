"""Answers told apart: whatever the pieces, the same events; nothing early, nothing lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from itertools import count, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.outputs import (
    ChatEvent,
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from inference_pio.plugin.facts import CallSyntax, ReasoningFormat
from inference_pio.text.answer import MAX_CALL, AnswerParser, joined
from inference_pio.text.calls import SYNTAXES

THINKS = ReasoningFormat()
SCHEMAS: dict[str, dict[str, Any]] = {
    "write": {
        "path": {"type": "string"},
        "text": {"type": "string"},
        "lines": {"type": "integer"},
        "force": {"type": "boolean"},
        "tags": {"type": "array"},
        "note": {"type": ["string", "null"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "mode": {"enum": ["1", "2"]},
        "number_or_none": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    },
    "now": {},
}


class Case(NamedTuple):
    text: str
    syntax: str | None
    reasoning: str
    content: str
    calls: list[tuple[str, Any]]
    thinking: bool = False
    thinks: bool = True


def _case(
    text: str, syntax: str | None = None, reasoning: str = "", content: str = "", calls: Any = (), **more: Any
) -> Case:
    return Case(text, syntax, reasoning, content, list(calls), **more)


def _plain(text: str, syntax: str | None = "hermes_json", **more: Any) -> Case:
    """Comes out as content, all of it."""
    return _case(text, syntax, content=text, **more)


HERMES = '<tool_call>\n{"name": "write", "arguments": {"path": "a"}}\n</tool_call>'
CODER = "<tool_call>\n<function=write>\n<parameter=path>\na\n</parameter>\n</function>\n</tool_call>"
GLM = "<tool_call>write<arg_key>path</arg_key><arg_value>a</arg_value></tool_call>"
A = ("write", {"path": "a"})
CASES: dict[str, Case] = {
    "nothing": _plain(""),
    "text": _plain("Hello <b>you</b>, 1 < 2 & é 👋\n"),
    "space only": _plain(" \n "),
    "space around": _plain("\n  indented\n\n"),
    "thoughts": _case("<think>\nhm\n</think>\n\nHello", reasoning="hm", content="Hello"),
    "thoughts behind space": _case("\n<think>hm</think>Hello", reasoning="hm", content="Hello"),
    "thoughts in the prompt": _case("hm\n\nso</think>Hi", None, "hm\n\nso", "Hi", thinking=True),
    "no thoughts": _case("<think>\n\n</think>\n\nHello", content="Hello"),
    "unfinished thoughts": _case("<think>\nhm\n</thin", reasoning="hm\n</thin"),
    "thoughts later are content": _plain("So <think>hm</think>"),
    "almost thoughts": _plain("<thinking>"),
    "a marker cut off": _plain("<thin"),
    "indentation behind thoughts": _case("<think>x</think>\n\n    code", reasoning="x", content="    code"),
    "a model that does not think": _plain("<think>hm</think>", thinks=False),
    "call in thoughts": _case(f"<think>{HERMES}</think>b", "hermes_json", reasoning=HERMES, content="b"),
    "no tools, no call": _plain(HERMES, None),
    # JSON between tags
    "hermes": _case(HERMES, "hermes_json", calls=[A]),
    "thoughts, text, calls": _case(
        f"<think>\nhm\n</think>\n\nI look.\n{HERMES}\n{HERMES}", "hermes_json", "hm", "I look.", [A, A]
    ),
    "text between and behind": _case(
        f"a\n{HERMES}\nb {HERMES} c\n", "hermes_json", "", "a\n\nb  c\n", [A, A]
    ),
    "text behind only": _case(f"{HERMES}\n\nb", "hermes_json", "", "b", [A]),
    "nested": _case(
        '<tool_call>{"arguments": {"a": {"b": [1, {"c": "}]"}], "d": "\\"</tool_call>\\\\"}}, "name": "f"}'
        "</tool_call>",
        "hermes_json",
        calls=[("f", {"a": {"b": [1, {"c": "}]"}], "d": '"</tool_call>\\'}})],
    ),
    "unicode": _case(
        '<tool_call>{"name": "f", "arguments": {"x": "\\u00e9\\ud83d\\ude00 é"}}</tool_call>',
        "hermes_json",
        calls=[("f", {"x": "é😀 é"})],
    ),
    "half a surrogate pair": _case(
        '<tool_call>{"name": "f", "arguments": {"x": "\\ud83d"}}</tool_call>',
        "hermes_json",
        calls=[("f", {"x": "\ud83d"})],
    ),
    "line break in a string": _case(
        '<tool_call>{"name": "f", "arguments": {"x": "a\nb"}}</tool_call>',
        "hermes_json",
        calls=[("f", {"x": "a\nb"})],
    ),
    "a list": _case(
        '<tool_call>[{"name": "f", "arguments": {}}, {"name": "g"}]</tool_call>',
        "hermes_json",
        calls=[("f", {}), ("g", {})],
    ),
    "arguments as text": _case(
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>',
        "hermes_json",
        calls=[("f", {"x": 1})],
    ),
    "closing marker missing": _case(HERMES.removesuffix("</tool_call>"), "hermes_json", calls=[A]),
    "closing marker cut off": _case(HERMES.removesuffix("call>"), "hermes_json", calls=[A]),
    "cut off": _plain(HERMES[:40]),
    "opener only": _plain("<tool_call>"),
    "no JSON": _plain("<tool_call>f(x)</tool_call> b"),
    "a brace missing": _plain('<tool_call>{"name": "f", "arguments": {"x": 1}</tool_call> b'),
    "wrong bracket": _plain('<tool_call>{"name": "f", "arguments": {"x": [1}]}</tool_call>'),
    "no name": _plain('<tool_call>{"arguments": {}}</tool_call>'),
    "name is a number": _plain('<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    "arguments are a list": _plain('<tool_call>{"name": "f", "arguments": []}</tool_call>'),
    "not a number": _plain('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>'),
    "infinite": _plain('<tool_call>{"name": "f", "arguments": {"x": 1e999}}</tool_call>'),
    "empty list": _plain("<tool_call>[]</tool_call>"),
    "too deep": _plain('<tool_call>{"name": "f", "arguments": ' + '{"a": ' * 64 + "1" + "}" * 66),
    "broken, then right": _case(
        f"<tool_call>oops {HERMES}", "hermes_json", content="<tool_call>oops", calls=[A]
    ),
    "opened twice": _case(f"<tool_call>{HERMES}", "hermes_json", content="<tool_call>", calls=[A]),
    "not closed, then right": _case(
        f"{HERMES.removesuffix('</tool_call>')}{HERMES}",
        "hermes_json",
        content=HERMES.removesuffix("\n</tool_call>"),
        calls=[A],
    ),
    "much space": _case(f"a{' ' * 600}{HERMES}", "hermes_json", content=f"a{' ' * 512}", calls=[A]),
    "many line breaks in thoughts": _case(
        "<think>a" + "\n" * 300 + "</think>b", reasoning="a" + "\n" * 256, content="b"
    ),
    "much space first": _plain(f"{' ' * 300}<think>a</think>"),
    # Qwen3-Coder
    "coder": _case(f"I look.\n\n{CODER}", "qwen3_coder_xml", "", "I look.", [A]),
    "coder, types": _case(
        "<tool_call>\n<function=write>\n"
        "<parameter=text>\n\n  5 </a>\n\n</parameter>\n<parameter=lines>\n5\n</parameter>\n"
        '<parameter=force>\nTrue\n</parameter>\n<parameter=tags>\n["x", {"y": null}]\n</parameter>\n'
        "<parameter=note>\nnull\n</parameter>\n<parameter=either>\n7\n</parameter>\n<parameter=mode>\n1\n</parameter>\n"
        "<parameter=number_or_none>\nNone\n</parameter>\n<parameter=unknown>\n1.5\n</parameter>\n"
        "</function>\n</tool_call>",
        "qwen3_coder_xml",
        calls=[
            (
                "write",
                {
                    "text": "\n  5 </a>\n",
                    "lines": 5,
                    "force": True,
                    "tags": ["x", {"y": None}],
                    "note": None,
                    "either": "7",
                    "mode": "1",
                    "number_or_none": None,
                    "unknown": 1.5,
                },
            )
        ],
    ),
    "coder, no parameters": _case(
        "<tool_call>\n<function=now>\n</function>\n</tool_call>", "qwen3_coder_xml", calls=[("now", {})]
    ),
    "coder, not of its type": _case(
        "<tool_call><function=write><parameter=lines>five</parameter></function></tool_call>",
        "qwen3_coder_xml",
        calls=[("write", {"lines": "five"})],
    ),
    "coder, tags in a value": _case(
        "<tool_call><function=write><parameter=text>\na</parameter></parameter>\n<b></function></tool_call>"
        " <tool_call>\n</parameter>\n</function></tool_call>",
        "qwen3_coder_xml",
        calls=[
            ("write", {"text": "a</parameter></parameter>\n<b></function></tool_call> <tool_call>"}),
        ],
    ),
    "coder, outer marker left out": _case(
        f"Hm\n{CODER.removeprefix('<tool_call>')}", "qwen3_coder_xml", content="Hm", calls=[A]
    ),
    "coder, outer markers left out": _case(
        "<function=now>\n</function>", "qwen3_coder_xml", calls=[("now", {})]
    ),
    "coder, a tag that is none": _plain("Write <function=f> and </function> so.", "qwen3_coder_xml"),
    "coder, cut off": _plain(CODER[:60], "qwen3_coder_xml"),
    "coder, in JSON": _plain(HERMES, "qwen3_coder_xml"),
    "coder, no function": _plain("<tool_call>\n<function=>\n</function></tool_call>", "qwen3_coder_xml"),
    "coder, a name too long": _plain(
        f"<tool_call><function={'f' * 257}></function></tool_call>", "qwen3_coder_xml"
    ),
    "coder, words between": _case(
        f"<tool_call>\n<function=write>\nwell\n</function>\n</tool_call>\n{CODER}",
        "qwen3_coder_xml",
        content="<tool_call>\n<function=write>\nwell\n</function>\n</tool_call>",
        calls=[A],
    ),
    # GLM
    "glm": _case(f"I look.{GLM}{GLM}", "glm_xml", "", "I look.", [A, A]),
    "glm 4.6": _case(
        "\n<think>hm</think>\nHi\n<tool_call>write\n<arg_key>path</arg_key>\n<arg_value>a</arg_value>\n"
        "<arg_key>lines</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "glm_xml",
        "hm",
        "Hi",
        [("write", {"path": "a", "lines": 3})],
    ),
    "glm, no arguments": _case("<tool_call>now</tool_call>", "glm_xml", calls=[("now", {})]),
    "glm, tags in a value": _case(
        "<tool_call>write<arg_key>text</arg_key><arg_value> a</arg_value> </tool_call_> </arg_value></tool_call>",
        "glm_xml",
        calls=[("write", {"text": " a</arg_value> </tool_call_> "})],
    ),
    "glm, number as text": _case(
        "<tool_call>write<arg_key>path</arg_key><arg_value>5</arg_value></tool_call>",
        "glm_xml",
        calls=[("write", {"path": "5"})],
    ),
    "glm, cut off": _plain(GLM[:-3], "glm_xml"),
    "glm, no name": _plain("<tool_call><arg_key>a</arg_key>", "glm_xml"),
    # Llama 3
    "llama": _case('\n{"name": "write", "parameters": {"path": "a"}}', "llama3_json", calls=[A]),
    "llama, tagged": _case(
        '<|python_tag|>{"name": "write", "parameters": {"path": "a"}}', "llama3_json", calls=[A]
    ),
    "llama, two": _case(
        '{"name": "now", "parameters": {}}\n{"name": "write", "parameters": {"path": "a"}}\nDone.',
        "llama3_json",
        content="Done.",
        calls=[("now", {}), A],
    ),
    "llama, an answer in JSON": _plain('{"name": "Ada", "parameters": {"age": 36}}', "llama3_json"),
    "llama, an object later": _plain('Use {"name": "now", "parameters": {}}', "llama3_json"),
    "llama, Python": _plain("<|python_tag|>print(1)", "llama3_json"),
    # Mistral
    "mistral": _case(
        '[TOOL_CALLS][{"name": "write", "arguments": {"path": "a"}, "id": "abcdefghi"}, '
        '{"name": "now", "arguments": {}}]',
        "mistral_json",
        calls=[A, ("now", {})],
    ),
    "mistral, tagged": _case(
        'Hm [TOOL_CALLS]write[CALL_ID]abcdefghi[ARGS]{"path": "a"}[TOOL_CALLS]now[ARGS]{}',
        "mistral_json",
        content="Hm",
        calls=[A, ("now", {})],
    ),
    "mistral, neither": _plain("[TOOL_CALLS] none", "mistral_json"),
}


def _parser(case: Case) -> AnswerParser:
    numbers = count()
    return AnswerParser(
        THINKS if case.thinks else None,
        thinking=case.thinking,
        syntax=SYNTAXES[case.syntax] if case.syntax else None,
        schemas=SCHEMAS,
        new_id=lambda: f"call_{next(numbers)}",
    )


def _events(case: Case, pieces: Iterable[str]) -> list[ChatEvent]:
    parser = _parser(case)
    told = [event for piece in pieces for event in parser.feed(piece)]
    return joined([*told, *parser.finish()])


def _pieces(text: str, cuts: Sequence[int]) -> list[str]:
    edges = [0, *sorted(cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("name", CASES)
def test_what_is_told(name: str) -> None:
    case = CASES[name]
    events = _events(case, [case.text])
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == case.reasoning
    assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == case.content
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    texts = [event.text for event in events if isinstance(event, ToolCallArguments)]
    assert [(start.name, json.loads(text)) for start, text in zip(starts, texts, strict=True)] == case.calls
    assert [start.index for start in starts] == list(range(len(case.calls)))
    assert [event.index for event in events if isinstance(event, ToolCallEnd)] == list(range(len(case.calls)))
    assert len({start.id for start in starts}) == len(starts)
    for text in texts:
        text.encode("utf-8")


@pytest.mark.parametrize("name", CASES)
def test_every_cut_in_two_and_character_by_character(name: str) -> None:
    case = CASES[name]
    whole = _events(case, [case.text])
    for cut in range(len(case.text) + 1):
        assert _events(case, _pieces(case.text, [cut])) == whole, f"cut at {cut}"
    assert _events(case, case.text) == whole


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20)
@given(data=st.data())
def test_any_cut(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    cuts = data.draw(st.lists(st.integers(0, len(case.text)), max_size=12))
    assert _events(case, _pieces(case.text, cuts)) == _events(case, [case.text])


FRAGMENTS = (
    *(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=write>",
        "</function>",
        "<parameter=path>",
    ),
    *(
        "</parameter>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
    ),
    *(
        '{"name": "write", "arguments": ',
        '{"path": "a"}',
        "write",
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        ":",
        ",",
        "1",
        "é",
    ),
    *("\n", " ", "\n" * 300, " " * 257, "<", "</", "x" * 40, HERMES, CODER, GLM),
)


@pytest.mark.parametrize("syntax", [None, *SYNTAXES])
@given(
    parts=st.lists(st.sampled_from(FRAGMENTS), max_size=14),
    data=st.data(),
    thinks=st.booleans(),
    thinking=st.booleans(),
)
def test_any_cut_of_any_text(
    syntax: str | None, parts: list[str], data: st.DataObject, thinks: bool, thinking: bool
) -> None:
    """Whatever a model writes: the same for every cut, and without a call nothing but space around markers is lost."""
    text = "".join(parts)
    case = Case(text, syntax, "", "", [], thinking=thinking and thinks, thinks=thinks)
    whole = _events(case, [text])
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert _events(case, _pieces(text, cuts)) == whole
    assert _events(case, text) == whole
    if not any(isinstance(event, ToolCallStart) for event in whole):
        told = "".join(event.text for event in whole if isinstance(event, ReasoningDelta | ContentDelta))
        left = (
            text if told == text or not thinks else text.replace("<think>", "", 1).replace("</think>", "", 1)
        )
        assert "".join(told.replace("<think>", "").replace("</think>", "").split()) == "".join(
            left.replace("<think>", "").replace("</think>", "").split()
        )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.calls or case.reasoning])
def test_nothing_of_a_marker_is_told(name: str) -> None:
    """Character by character, no content is told that the whole answer does not have."""
    case = CASES[name]
    parser = _parser(case)
    told = ""
    for character in case.text:
        told += "".join(event.text for event in parser.feed(character) if isinstance(event, ContentDelta))
        assert case.content.startswith(told)


def test_a_call_that_is_too_long_is_content() -> None:
    text = HERMES.replace('"a"', f'"{"a" * MAX_CALL}"')
    case = _plain(f"{text} {HERMES}")
    contents = []
    for pieces in ([case.text], [case.text[:77], case.text[77:]]):
        events = _events(case, pieces)
        assert [type(event) for event in events[1:]] == [ToolCallStart, ToolCallArguments, ToolCallEnd]
        assert isinstance(events[0], ContentDelta)
        contents.append(events[0].text)
    assert contents == [text, text]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("text", ['{"a":', "[__import__('os').system('x')]", "f(a=__import__('os'))"])
@pytest.mark.parametrize("begun", ["", '<tool_call>{"a": "'])
def test_a_megabyte_that_is_no_call_is_text_at_once(syntax: CallSyntax, text: str, begun: str) -> None:
    whole = (begun + text * (1_000_000 // len(text)))[:1_000_000]
    took = []
    for _ in range(3):
        parser = AnswerParser(None, thinking=False, syntax=SYNTAXES[syntax], schemas={})
        started = time.thread_time()
        events = [*parser.feed(whole), *parser.finish()]
        took.append(time.thread_time() - started)
        assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == whole
    assert min(took) < 0.05


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        ("hermes_json", '<tool_call>{"a":' + '{"a":' * 25_000),
        ("hermes_json", "<tool_call>" * 12_000),
        ("hermes_json", '<tool_call>{"a": "' * 6_000),
        ("hermes_json", " " * 120_000),
        ("qwen3_coder_xml", "<tool_call><function=f><parameter=a>" + "</parameter>" * 10_000),
        ("qwen3_coder_xml", "<tool_call><function=f>" + "<parameter=a></parameter>" * 5_000),
        ("glm_xml", "<tool_call>f" * 10_000),
        ("llama3_json", "{" * 120_000),
        ("mistral_json", "[TOOL_CALLS][" * 10_000),
    ],
)
def test_time_grows_with_the_text_and_no_faster(syntax: str, text: str) -> None:
    """Texts made to be read again and again: eight times as much takes nowhere near 64 times as long."""

    def seconds(size: int) -> float:
        pieces = [text[start : min(start + 7, size)] for start in range(0, size, 7)]
        started = time.perf_counter()
        _events(_case(text[:size], syntax), pieces)
        return time.perf_counter() - started

    short = min(seconds(len(text) // 8) for _ in range(3))
    assert min(seconds(len(text)) for _ in range(2)) < 24 * short + 0.05
