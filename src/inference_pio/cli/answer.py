"""One request from prompt to figures: chunks are shown as they come, tokens and time are counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from inference_pio.cli.text import visible
from inference_pio.outputs import StreamChunk, TokenLogprobs

if TYPE_CHECKING:
    from inference_pio.outputs import FinishReason


@dataclass
class Answer:
    """What one of a request's `n` answers has become so far."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None

    def add(self, chunk: StreamChunk) -> None:
        self.text += chunk.text
        self.token_ids += chunk.token_ids
        if chunk.logprobs is not None:
            self.logprobs = [*(self.logprobs or []), *chunk.logprobs]
        self.finish_reason, self.stop_reason = chunk.finish_reason, chunk.stop_reason


@dataclass
class Timing:
    """Tokens and seconds of one request; decode counts the tokens after the first of each answer."""

    prompt_tokens: int
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    decode_tokens: int = 0

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
        if show is not None:
            show(chunk)


def guess_figures(made: int, right: int) -> list[str]:
    """For the line of figures: nothing where nothing was guessed."""
    return [f"guessed {made} tokens ahead, {right} of them right"] if made else []


def show_text(chunk: StreamChunk) -> None:
    """A chunk's text on stdout at once; what could steer a terminal is made harmless where there is one."""
    if chunk.text:
        sys.stdout.write(visible(chunk.text) if sys.stdout.isatty() else chunk.text)
        sys.stdout.flush()
