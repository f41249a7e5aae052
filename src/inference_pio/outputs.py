"""What comes back: typed results with vLLM's names and shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True)
class Logprob:
    """Natural log-probability of a token under the model, before temperature, penalties and filters.

    `rank` is 1 for the most likely token.
    """

    logprob: float
    rank: int
    decoded_token: str | None = None


TokenLogprobs = dict[int, Logprob]


@dataclass
class CompletionOutput:
    """One answer. `stop_reason` is the stop string or token id that ended it, if one did; `error` says why
    `finish_reason` is "error"."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: str | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(frozen=True)
class RequestMetrics:
    """Seconds since the request arrived, and how many prompt tokens the prefix cache saved."""

    time_to_first_token: float
    time_total: float
    num_cached_tokens: int


@dataclass
class RequestOutput:
    """All answers to one prompt."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics | None = None


@dataclass(frozen=True)
class StreamChunk:
    """What one step added to one answer: whole characters only, and the ids behind them."""

    index: int
    text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
