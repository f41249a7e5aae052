"""Recorded traffic: when requests came, how long their prompts and answers were, and what the prompts had in common.

Two formats are read, as they are or with `.gz` behind:

* Azure's LLM inference trace of 2023 (Patel et al., Splitwise, ISCA 2024): CSV, `TIMESTAMP,ContextTokens,
  GeneratedTokens`;
* Mooncake's (Qin et al., FAST 2025): JSON lines of `timestamp` in ms, `input_length`, `output_length` and `hash_ids`,
  one for each 512 tokens of the prompt, equal where prompts are equal up to there.

Neither holds any text: the token ids made here are random, equal for equal hashes.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from inference_pio.errors import UsageError

PACKAGED = {
    "azure-code": "azure_code.csv.gz",
    "azure-conv": "azure_conv.csv.gz",
    "mooncake": "mooncake_conversation.jsonl.gz",
}
HASHED = 512
_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_KEYS = ("timestamp", "input_length", "output_length")


@dataclass(frozen=True)
class TraceRequest:
    """seconds since the trace's first request; hash_ids name the prompt's pieces of 512 tokens, none where the trace
    does not say what prompts share."""

    seconds: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()


def read_trace(name: str, most: int | None = None) -> list[TraceRequest]:
    """The first `most` requests of a packaged trace's excerpt or of a file.

    Raises:
        UsageError: there is no such file, or it is no trace: the file, the line and what is wrong with it.
    """
    if name in PACKAGED:
        with resources.as_file(resources.files(__package__) / "data" / PACKAGED[name]) as path:
            return _read(path, most)
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"no trace {name!r}: give {', '.join(PACKAGED)} or a file")
    return _read(path, most)


def scaled(requests: Iterable[TraceRequest], scale: int, speed: float = 1.0) -> list[TraceRequest]:
    """The same with 1/scale of the tokens, one at least, `speed` times as fast."""
    return [
        replace(
            request,
            seconds=request.seconds / speed,
            prompt_tokens=max(1, request.prompt_tokens // scale),
            output_tokens=max(1, request.output_tokens // scale),
        )
        for request in requests
    ]


class TracePrompts:
    """Token ids of a scaled trace's prompts: those that share hashes share tokens, others do not."""

    def __init__(self, vocab_size: int, scale: int) -> None:
        self._vocab_size, self._scale = vocab_size, scale

    def token_ids(self, number: int, request: TraceRequest) -> list[int]:
        """Of the trace's request of this number; always the same."""
        if not request.hash_ids:
            return self._drawn(f"request {number}", request.prompt_tokens)
        ids: list[int] = []
        for place, name in enumerate(request.hash_ids):
            # Borders are those of the trace, scaled: a hash stands at the same place in every prompt.
            length = (place + 1) * HASHED // self._scale - place * HASHED // self._scale
            ids += self._drawn(f"hash {name}", length)
            if len(ids) >= request.prompt_tokens:
                break
        # Behind the last piece, where rounding leaves room, nothing is shared.
        ids += self._drawn(f"request {number}", max(0, request.prompt_tokens - len(ids)))
        return ids[: request.prompt_tokens]

    def _drawn(self, seed: str, count: int) -> list[int]:
        return random.Random(seed).choices(range(self._vocab_size), k=count)


def _read(path: Path, most: int | None) -> list[TraceRequest]:
    try:
        requests = list(islice(_requests(path), most))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a trace: {error}") from error
    if not requests:
        raise UsageError(f"{path} holds no request")
    return requests


def _requests(path: Path) -> Iterator[TraceRequest]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        first = lines.readline()
        if first.lstrip().startswith("{"):
            yield from _in_order(
                path, 1, (_mooncake(path, 1 + n, line) for n, line in enumerate(_all(first, lines)))
            )
        elif next(csv.reader([first]), []) == _COLUMNS:
            yield from _in_order(path, 2, (_azure(path, 2 + n, line) for n, line in enumerate(lines)))
        else:
            raise UsageError(
                f"{path}, line 1: a trace begins with {','.join(_COLUMNS)} (Azure) or a JSON object (Mooncake), "
                f"got {first.strip()!r:.60}"
            )


def _all(first: str, lines: Iterable[str]) -> Iterator[str]:
    yield first
    yield from lines


def _in_order(path: Path, line: int, requests: Iterable[TraceRequest]) -> Iterator[TraceRequest]:
    """Seconds since the first."""
    start = before = None
    for number, request in enumerate(requests, line):
        if start is None:
            start = request.seconds
        if before is not None and request.seconds < before:
            raise UsageError(
                f"{path}, line {number}: {before - request.seconds:g} s before the line above it"
            )
        before = request.seconds
        yield replace(request, seconds=request.seconds - start)


def _azure(path: Path, number: int, line: str) -> TraceRequest:
    row = next(csv.reader([line]), [])
    try:
        time, prompt, answer = row
        seconds = datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()
        return _checked(TraceRequest(seconds, int(prompt), int(answer)))
    except ValueError as error:
        raise UsageError(
            f"{path}, line {number}: {line.strip()!r:.60} is not TIMESTAMP,ContextTokens,GeneratedTokens: {error}"
        ) from error


def _mooncake(path: Path, number: int, line: str) -> TraceRequest:
    try:
        row: dict[str, Any] = json.loads(line)
        time, prompt, answer = (row[key] for key in _KEYS)
        hash_ids = tuple(row["hash_ids"])
        return _checked(TraceRequest(time / 1000, prompt, answer, hash_ids), hashed=True)
    except (ValueError, TypeError, KeyError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{path}, line {number}: {line.strip()!r:.60} is no request: {why}") from error


def _checked(request: TraceRequest, *, hashed: bool = False) -> TraceRequest:
    if not math.isfinite(request.seconds):
        raise ValueError("its time is no number")
    if not all(type(one) is int for one in (request.prompt_tokens, request.output_tokens, *request.hash_ids)):
        raise ValueError("lengths and hash_ids must be whole numbers")
    pieces = -(-request.prompt_tokens // HASHED)
    if hashed and len(request.hash_ids) != pieces:
        raise ValueError(f"{request.prompt_tokens} tokens are {pieces} hash_ids, got {len(request.hash_ids)}")
    if request.prompt_tokens < 1 or request.output_tokens < 0:
        raise ValueError("a prompt has one token at least, an answer none at least")
    return request
