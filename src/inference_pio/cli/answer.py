"""One request from prompt to figures: chunks are shown as they come, tokens and time are counted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from inference_pio.cli.text import visible
from inference_pio.outputs import CacheExplanation, ChatChunk, RequestMetrics, StreamChunk, TokenLogprobs

if TYPE_CHECKING:
    from inference_pio.outputs import FinishReason


@dataclass
class Answer:
    """What one of a request's `n` answers has become so far."""

    text: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    cache: CacheExplanation | None = None

    def add(self, chunk: StreamChunk) -> None:
        self.text += chunk.text
        if isinstance(chunk, ChatChunk):
            self.reasoning += chunk.reasoning
        self.token_ids += chunk.token_ids
        if chunk.logprobs is not None:
            self.logprobs = [*(self.logprobs or []), *chunk.logprobs]
        self.finish_reason, self.stop_reason = chunk.finish_reason, chunk.stop_reason
        self.cache = self.cache or chunk.cache_explanation


@dataclass
class Timing:
    """Tokens and seconds of one request; decode counts the tokens after the first of each answer. `metrics` come with
    the request's end."""

    prompt_tokens: int
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    decode_tokens: int = 0
    metrics: RequestMetrics | None = None

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens per second until the first token; tokens out of the prefix cache count as done."""
        return self.prompt_tokens / self.first_token_seconds if self.first_token_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        seconds = self.total_seconds - self.first_token_seconds
        return self.decode_tokens / seconds if self.decode_tokens and seconds > 0 else 0.0


def follow(
    chunks: Iterable[StreamChunk],
    answers: list[Answer],
    timing: Timing,
    show: Callable[[StreamChunk], None] | None = None,
) -> None:
    """Read a request to its end into `answers` and `timing`, which hold what there is if it is interrupted."""
    started = perf_counter()
    for chunk in chunks:
        timing.total_seconds = perf_counter() - started
        timing.first_token_seconds = timing.first_token_seconds or timing.total_seconds
        answers[chunk.index].add(chunk)
        timing.decode_tokens = sum(max(0, len(answer.token_ids) - 1) for answer in answers)
        timing.metrics = chunk.metrics
        if show is not None:
            show(chunk)


def guess_figures(made: int, right: int) -> list[str]:
    """For the line of figures: nothing where nothing was guessed."""
    return [f"guessed {made} tokens ahead, {right} of them right"] if made else []


class Shown:
    """Puts an answer on stdout as it comes; what could steer a terminal is made harmless where there is one.

    Args:
        thoughts: show what the model thinks first, dimmed unless the environment asks for no colours; into a pipe or
            a file goes the answer alone.
    """

    def __init__(self, thoughts: bool) -> None:
        self._terminal = sys.stdout.isatty()
        self._thoughts = thoughts and self._terminal
        self._behind_thoughts = False
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._dim, self._bright = ("", "") if plain else ("\x1b[2m", "\x1b[0m")

    def __call__(self, chunk: StreamChunk) -> None:
        if self._thoughts and isinstance(chunk, ChatChunk) and chunk.reasoning:
            self._behind_thoughts = True
            self._write(f"{self._dim}{visible(chunk.reasoning)}{self._bright}")
        if chunk.text:
            gap = "\n\n" if self._behind_thoughts else ""
            self._behind_thoughts = False
            self._write(gap + (visible(chunk.text) if self._terminal else chunk.text))

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
