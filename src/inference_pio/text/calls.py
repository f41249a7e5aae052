"""Tool calls as models write them: one reader per syntax of `inference_pio.plugin.facts.CallSyntax`.

Each was written from the chat templates that teach it: `tests/data/templates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference_pio.plugin.facts import CallSyntax
from inference_pio.text.call_values import dumps, loads, typed
from inference_pio.text.feed import (
    Feed,
    Malformed,
    Reader,
    closing,
    expect,
    json_text,
    more,
    name,
    space,
    value,
)

Schemas = Mapping[str, Mapping[str, Any]]
"""Name of a tool -> name of a parameter -> its JSON schema."""


@dataclass(frozen=True)
class Call:
    """`arguments` is the text of a JSON object; `id` is None where the model wrote none."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True)
class Syntax:
    """How to find and read calls.

    sign     what a chat template that teaches the syntax contains
    openers  with what a call begins; the reader takes it as well
    markers  every marker, for vocabularies in which they are special tokens
    anywhere whether text may come first
    read     from the opener to the end of the call
    """

    sign: str
    openers: tuple[str, ...]
    markers: tuple[str, ...]
    read: Callable[[Feed, Schemas], Reader[list[Call]]]
    anywhere: bool = True
    short_ids: bool = False


def _hermes_json(feed: Feed, _schemas: Schemas) -> Reader[list[Call]]:
    yield from expect(feed, "<tool_call>")
    yield from space(feed)
    text = yield from json_text(feed)
    yield from closing(feed, "</tool_call>")
    return _json_calls(text)


def _qwen3_coder_xml(feed: Feed, schemas: Schemas) -> Reader[list[Call]]:
    # Qwen3-Coder sometimes leaves the outer marker out where it writes nothing before the call.
    if (yield from expect(feed, "<tool_call>", "<function=")) == "<tool_call>":
        yield from space(feed)
        yield from expect(feed, "<function=")
    tool = yield from name(feed)
    yield from expect(feed, ">")
    yield from space(feed)
    schema = schemas.get(tool, {})
    arguments: dict[str, Any] = {}
    mark = yield from expect(feed, "<parameter=", "</function>")
    while mark == "<parameter=":
        key = yield from name(feed)
        yield from expect(feed, ">")
        text, mark = yield from value(feed, "</parameter>", ("<parameter=", "</function>"))
        # One line break on either side belongs to the template's layout, any other to the value.
        arguments[key] = typed(text.removeprefix("\n").removesuffix("\n"), schema.get(key))
    yield from closing(feed, "</tool_call>")
    return [Call(tool, dumps(arguments))]


def _glm_xml(feed: Feed, schemas: Schemas) -> Reader[list[Call]]:
    yield from expect(feed, "<tool_call>")
    yield from space(feed)
    tool = yield from name(feed)
    yield from space(feed)
    schema = schemas.get(tool, {})
    arguments: dict[str, Any] = {}
    mark = yield from expect(feed, "<arg_key>", "</tool_call>")
    while mark == "<arg_key>":
        key, _ = yield from value(feed, "</arg_key>", ("<arg_value>",))
        text, mark = yield from value(feed, "</arg_value>", ("<arg_key>", "</tool_call>"))
        arguments[key.strip()] = typed(text, schema.get(key.strip()))
    return [Call(tool, dumps(arguments))]


def _llama3_json(feed: Feed, schemas: Schemas) -> Reader[list[Call]]:
    opener = yield from expect(feed, "<|python_tag|>", "{")
    if opener != "{":
        yield from space(feed)
        yield from expect(feed, "{")
    text = yield from json_text(feed, "{")
    calls = _json_calls(text)
    # Nothing marks such a call: an object that names no tool is an answer in JSON.
    if calls[0].name not in schemas:
        raise Malformed
    return calls


def _mistral_json(feed: Feed, _schemas: Schemas) -> Reader[list[Call]]:
    yield from expect(feed, "[TOOL_CALLS]")
    yield from space(feed)
    yield from more(feed)
    if feed.text[feed.at] in "[{":
        text = yield from json_text(feed)
        return _json_calls(text)
    tool = yield from name(feed)
    call_id = None
    mark = yield from expect(feed, "[CALL_ID]", "[ARGS]")
    if mark == "[CALL_ID]":
        call_id = yield from name(feed)
        yield from expect(feed, "[ARGS]")
    yield from space(feed)
    text = yield from json_text(feed)
    return [Call(tool, _arguments(_read(text)), call_id)]


def _json_calls(text: str) -> list[Call]:
    """Calls out of {"name": …, "arguments" or "parameters": {…}}, or a list of them."""
    read = _read(text)
    found = [_json_call(item) for item in (read if isinstance(read, list) else [read])]
    if not found:
        raise Malformed
    return found


def _json_call(item: object) -> Call:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
        raise Malformed
    call_id = item.get("id")
    return Call(
        item["name"],
        _arguments(item.get("arguments", item.get("parameters"))),
        call_id if isinstance(call_id, str) and call_id else None,
    )


def _arguments(given: object) -> str:
    """The text of an object; it may come as text itself, and none is an empty one."""
    read = _read(given) if isinstance(given, str) else given
    if read is None:
        return "{}"
    if not isinstance(read, dict):
        raise Malformed
    return dumps(read)


def _read(text: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        raise Malformed from error


_TOOL_CALL = ("<tool_call>", "</tool_call>")
SYNTAXES: Mapping[CallSyntax, Syntax] = {
    "hermes_json": Syntax("<tool_call>", _TOOL_CALL[:1], _TOOL_CALL, _hermes_json),
    "qwen3_coder_xml": Syntax("<function=", ("<tool_call>", "<function="), _TOOL_CALL, _qwen3_coder_xml),
    "glm_xml": Syntax(
        "<arg_key>",
        _TOOL_CALL[:1],
        (*_TOOL_CALL, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        _glm_xml,
    ),
    "llama3_json": Syntax(
        '"parameters"', ("<|python_tag|>", "{"), ("<|python_tag|>",), _llama3_json, anywhere=False
    ),
    "mistral_json": Syntax(
        "[TOOL_CALLS]",
        ("[TOOL_CALLS]",),
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        _mistral_json,
        short_ids=True,
    ),
}


def syntax_of(known: Sequence[CallSyntax], template: str) -> Syntax | None:
    """The first syntax of an architecture that this template teaches."""
    return next((SYNTAXES[which] for which in known if SYNTAXES[which].sign in template), None)
