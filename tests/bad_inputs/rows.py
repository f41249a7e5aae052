"""Rows of the catalogue of bad input, as `parameters.toml` and `prompts.toml` state them.

id          number in the catalogue; several rows share one
name        what is wrong
params      `SamplingParams`' keywords; over those of a short greedy answer
prompt      what `generate` is given
messages    what `chat` is given, with the keywords `more`
model       what `LLM` is given
cli         options for `inference-pio run` that mean the same; without it the row has none
typed       the same words on the standard input of `run` and of `chat`; "(100000" are that many brackets
front_ends  of "python", "plugin" and "cli" where not all
error       name in `inference_pio.errors`; without it the input is accepted
words       parts of the message; `cli_words` and `chat_words` where a command line's own reader says it otherwise
same_words  false where a model in a worker says the same of its own accord in other words
holds       of what is accepted, with the token ids of all `answers`, their finish `reasons`, the `usual` answers, and
            how many `specials` a prompt has
within      seconds in which it is refused

`params`, `prompt`, `messages`, `more`, `model` and `holds` are expressions of Python, for what TOML cannot say.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_pio import errors

FRONT_ENDS = ("python", "plugin", "cli")


@dataclass(frozen=True)
class Row:
    id: str
    name: str
    params: str = ""
    prompt: str = ""
    messages: str = ""
    more: str = "{}"
    model: str = ""
    cli: tuple[str, ...] | None = None
    typed: str | None = None
    front_ends: tuple[str, ...] = FRONT_ENDS
    error: str = ""
    words: tuple[str, ...] = ()
    cli_words: tuple[str, ...] = ()
    chat_words: tuple[str, ...] = ()
    same_words: bool = True
    holds: str = ""
    within: float = math.inf

    def __str__(self) -> str:
        return f"{self.id} {self.name}"

    @property
    def kind(self) -> type[Exception]:
        found: type[Exception] = getattr(errors, self.error)
        return found


def rows_of(file: str) -> list[Row]:
    """The rows of a data file; whatever is wrong with one fails here."""
    read = tomllib.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))
    assert set(read) == {"row", "left_out"}
    assert all(set(each) == {"id", "what", "why"} for each in read["left_out"])
    rows = [Row(**{name: _fixed(value) for name, value in each.items()}) for each in read["row"]]
    assert len(set(map(str, rows))) == len(rows)
    for row in rows:
        assert bool(row.error) != bool(row.holds), row
        assert bool(row.error) == bool(row.words), row
        assert sum(map(bool, (row.params, row.prompt, row.messages, row.model))) == 1, row
        assert set(row.front_ends) <= set(FRONT_ENDS), row
    return rows


def value_of(expression: str, **names: Any) -> Any:
    return eval(expression, {"math": math, "Path": Path, **_SAID, **names})


def typed_text(row: Row) -> str:
    assert row.typed is not None
    return row.typed[0] * int(row.typed[1:]) if row.typed[1:].isdigit() else row.typed


def _fixed(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _user(content: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def _called(arguments: str) -> dict[str, Any]:
    call = {"id": "a", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


_SAID = {"user": _user, "called": _called, "nested": _nested}
