"""Tools a model may call, and calls and results in a conversation: checked, and in the shape that templates read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from inference_pio.errors import UsageError, shown
from inference_pio.text.call_values import loads

MAX_TOOLS = 128
MAX_BYTES = 64 * 1024
_MAX_ID = 256
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def checked_tools(tools: object) -> dict[str, Mapping[str, Any]]:
    """Name -> JSON schemas of its parameters by name, of tools in OpenAI's shape or without its outer object.

    Raises:
        UsageError: naming the place, such as `tools[3].function.name`.
    """
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise UsageError(f"tools must be a list of tools, got {type(tools).__name__}")
    if not 0 < len(tools) <= MAX_TOOLS:
        raise UsageError(f"tools: 1 to {MAX_TOOLS} tools or None, got {len(tools)}")
    found: dict[str, Mapping[str, Any]] = {}
    for index, tool in enumerate(tools):
        name, parameters = _tool(tool, f"tools[{index}]")
        if name in found:
            raise UsageError(f"tools[{index}]: a tool called {name!r} was given already")
        found[name] = parameters
    return found


def _tool(tool: object, where: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(tool, Mapping):
        raise UsageError(
            f"{where} must be an object such as {{'type': 'function', 'function': {{'name': …}}}}"
        )
    if "function" in tool:
        tool, where = tool["function"], f"{where}.function"
    name = tool.get("name") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{where}.name must be 1 to 64 letters, digits, _ or -, got {shown(name)}")
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise UsageError(f"{where}.parameters must be a JSON schema, got {type(parameters).__name__}")
    check_size(tool, where)
    properties = (parameters or {}).get("properties")
    return name, properties if isinstance(properties, Mapping) else {}


def check_size(value: object, where: str) -> None:
    """Raises `UsageError` for what is no JSON, or more than 64 KB of it."""
    try:
        size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{where} must be made of what JSON has: {error}") from error
    if size > MAX_BYTES:
        raise UsageError(f"{where} has {size} bytes as JSON, more than {MAX_BYTES}")


def with_objects(message: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """An assistant's message whose calls carry their arguments as objects: templates loop over them.

    Raises:
        UsageError: a call has no name, or arguments that are neither an object nor the text of one.
    """
    calls = message.get("tool_calls")
    if calls is None:
        return message
    if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)) or len(calls) > MAX_TOOLS:
        raise UsageError(f"{where}.tool_calls must be a list of at most {MAX_TOOLS} calls")
    return {
        **message,
        "tool_calls": [
            _with_object(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)
        ],
    }


def _with_object(call: object, where: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise UsageError(
            f"{where} must be an object such as {{'id': …, 'function': {{'name': …, 'arguments': …}}}}"
        )
    _check_id(call.get("id"), f"{where}.id")
    if "function" in call:
        return {**call, "function": _function(call["function"], f"{where}.function")}
    return _function(call, where)


def _function(function: object, where: str) -> dict[str, Any]:
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not 0 < len(name) <= _MAX_ID:
        raise UsageError(f"{where}.name must be text, got {shown(name)}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments or "{}")
        except ValueError as error:
            raise UsageError(f"{where}.arguments is no JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        raise UsageError(
            f"{where}.arguments must be an object or the JSON text of one, got {shown(arguments)}"
        )
    return {**function, "arguments": arguments}


def check_results(messages: Sequence[Mapping[str, Any]]) -> None:
    """Whether every tool's message answers a call that came before it, as far as both carry ids.

    Raises:
        UsageError: naming the message.
    """
    known: set[str] = set()
    for index, message in enumerate(messages):
        for call in (message.get("tool_calls") or ()) if message.get("role") == "assistant" else ():
            if isinstance(call.get("id"), str):
                known.add(call["id"])
        if message.get("role") != "tool":
            continue
        call_id, where = message.get("tool_call_id"), f"messages[{index}].tool_call_id"
        _check_id(call_id, where)
        if call_id is not None and known and call_id not in known:
            raise UsageError(f"{where} {call_id!r:.60} is the id of no call before it")


def _check_id(given: object, where: str) -> None:
    if given is not None and not (isinstance(given, str) and 0 < len(given) <= _MAX_ID):
        raise UsageError(f"{where} must be text of 1 to {_MAX_ID} characters, got {shown(given)}")
