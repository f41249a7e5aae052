"""What workers answer, checked: a reply is of the work that was asked for, or it is a failure with its cause."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from inference_pio.errors import InferencePIOError


class WorkerFailed(InferencePIOError):
    """A peer's worker ended, took too long or said something else than it should. The others go on."""


@dataclass(frozen=True)
class Ready:
    """A worker that has loaded its model. `described` is how it set itself up, in words."""

    version: str
    described: str
    vocab_size: int


@dataclass(frozen=True)
class Reply:
    """One timed request: seconds until the last token, seconds until the first (None: not known), and the tokens."""

    seconds: float
    first_token_seconds: float | None
    tokens: list[list[int]]

    @property
    def first(self) -> float:
        if self.first_token_seconds is None:
            raise WorkerFailed("it does not say when the first token came")
        return self.first_token_seconds


def parse_ready(line: bytes) -> Ready:
    """Raises WorkerFailed where this is not a worker's first line."""
    ready = _object(line).get("ready")
    fields = {"version": str, "described": str, "vocab_size": int}
    if not isinstance(ready, dict) or {name: type(value) for name, value in ready.items()} != fields:
        raise WorkerFailed(f"said {_shown(line)} instead of that it is ready")
    return Ready(**ready)


def parse_reply(line: bytes, requests: int, output_len: int) -> Reply:
    """Raises WorkerFailed where this is not the answer to `requests` prompts of exactly `output_len` tokens each."""
    answer = _object(line)
    seconds, first, tokens = (answer.get(name) for name in ("seconds", "first_token_seconds", "tokens"))
    if not _positive(seconds) or not isinstance(tokens, list):
        raise WorkerFailed(f"said {_shown(line)} instead of an answer")
    if first is not None and not (_positive(first) and first <= seconds):
        raise WorkerFailed(f"says that the first token came after {first} of {seconds} s")
    lengths = [len(ids) if isinstance(ids, list) else 0 for ids in tokens]
    if lengths != [output_len] * requests:
        raise WorkerFailed(
            f"gave {len(lengths)} answers of {sorted(set(lengths))} tokens instead of {requests} of {output_len}"
        )
    return Reply(float(answer["seconds"]), first, tokens)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise WorkerFailed(f"said {_shown(line)} instead of a JSON object")
    return found


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace"))
