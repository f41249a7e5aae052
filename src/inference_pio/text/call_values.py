"""Arguments of tool calls: JSON that a model wrote, read strictly, and text that a tool's schema gives a type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# What models that learnt from Python write for JSON's constants (Qwen3-Coder's template does so itself).
_PYTHON = {"True": True, "False": False, "None": None}


def loads(text: str) -> Any:
    """A JSON value; line breaks inside strings are let through, as models write them.

    Raises:
        ValueError: it is none, is nested too deeply, or holds a number that JSON cannot carry.
    """
    try:
        value = json.loads(text, strict=False)
        dumps(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def dumps(value: Any) -> str:
    """The text of a JSON value as clients get it; characters beyond ASCII stay, half surrogate pairs are escaped.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


def typed(text: str, schema: object) -> Any:
    """The value of an argument that was written without quotes.

    What the schema calls a string stays one. Anything else is read as JSON, or Python's spelling of its constants;
    where it is neither, it is a string after all.
    """
    kinds = _kinds(schema)
    stripped = text.strip()
    if "string" in kinds:
        return None if stripped == "null" and "null" in kinds else text
    if stripped in _PYTHON:
        return _PYTHON[stripped]
    try:
        return loads(stripped)
    except ValueError:
        return text


def _kinds(schema: object) -> set[str]:
    """Names of the types that a JSON schema allows at its top; empty where it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    stated = schema.get("type")
    kinds = {stated} if isinstance(stated, str) else set()
    if isinstance(stated, list):
        kinds |= {kind for kind in stated if isinstance(kind, str)}
    for choice in ("anyOf", "oneOf"):
        options = schema.get(choice)
        if isinstance(options, list):
            kinds |= set().union(*map(_option_kinds, options))
    if not kinds and isinstance(values := schema.get("enum"), list) and values:
        kinds = {"string"} if all(isinstance(value, str) for value in values) else set()
    return kinds


def _option_kinds(option: object) -> set[str]:
    stated = option.get("type") if isinstance(option, Mapping) else None
    return {stated} if isinstance(stated, str) else set()
