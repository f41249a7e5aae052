"""What comes back: typed results with vLLM's names and shapes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from inference_pio.metrics.performance import PerformanceMetrics

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


@dataclass(frozen=True)
class FunctionCall:
    """`arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for, shaped as in OpenAI's chat completions."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


@dataclass
class CompletionOutput:
    """One answer. `stop_reason` is the stop string or token id that ended it, if one did; `error` says why
    `finish_reason` is "error".

    `LLM.chat` reads the answer: `text` is what is meant for the user, `reasoning` the thoughts before it (vLLM's
    name; None where there are none), `tool_calls` what the model wants called (None where it is nothing).
    `LLM.generate` leaves the text as it is and the two others None.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None

    def as_message(self) -> dict[str, Any]:
        """The answer as `LLM.chat` takes it back: the assistant's message of the conversation's next turn."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning is not None:
            message["reasoning"] = self.reasoning
        if self.tool_calls is not None:
            message["tool_calls"] = [asdict(call) for call in self.tool_calls]
        return message


CacheReason = Literal["whole", "diverged", "new", "forgotten", "not computed", "no snapshot", "off"]


@dataclass(frozen=True)
class CacheExplanation:
    """Why the prefix cache gave `num_cached_tokens` of a prompt and no more.

    reason             "whole": all there was to give, whole blocks with one token at least behind them; "diverged":
                       the prompt leaves what is known there; "new": nothing known begins like it; "forgotten": more
                       was known and made room for a request; "not computed": a request begins alike and had not got
                       that far; "no snapshot": layers keep state, and behind more of it no copy was kept; "off"
    num_common_tokens  leading tokens in common with what is known, a part of a block included
    token_id           the prompt's token behind those, `known_token_id` what was known in its place; None: nothing
    other_request      whose tokens took the room, or were not computed; `seconds_ago` of the first
    text               all this in one line, where there is a tokenizer with the tokens' text
    """

    reason: CacheReason
    num_prompt_tokens: int
    num_cached_tokens: int
    block_size: int
    num_common_tokens: int
    token_id: int | None = None
    known_token_id: int | None = None
    other_request: str | None = None
    seconds_ago: float | None = None
    text: str = ""


@dataclass(frozen=True)
class RequestMetrics:
    """Seconds since the request arrived, and how many prompt tokens the prefix cache saved, and why.

    `performance` is the standard's record of this request (`runtime/performance.py` says what its figures are).
    """

    time_to_first_token: float
    time_total: float
    num_cached_tokens: int
    cache_explanation: CacheExplanation | None = None
    performance: PerformanceMetrics = field(default_factory=PerformanceMetrics.unmeasured)


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
    """What one step added to one answer: whole characters only, and the ids behind them.

    With the option `explain_cache` a request's first chunk says what the prefix cache gave; the last one, with which
    every answer has ended, has the request's `metrics`.
    """

    index: int
    text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    cache_explanation: CacheExplanation | None = None
    metrics: RequestMetrics | None = None


@dataclass(frozen=True)
class ReasoningDelta:
    """More of what the model thinks."""

    text: str


@dataclass(frozen=True)
class ContentDelta:
    """More of the answer itself."""

    text: str


@dataclass(frozen=True)
class ToolCallStart:
    """A call begins; `index` counts the calls of one answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """More of a call's arguments: what comes for one index, joined, is the text of a JSON object."""

    index: int
    text: str


@dataclass(frozen=True)
class ToolCallEnd:
    """Nothing more comes for this call."""

    index: int


ChatEvent = ReasoningDelta | ContentDelta | ToolCallStart | ToolCallArguments | ToolCallEnd


@dataclass(frozen=True)
class ChatChunk(StreamChunk):
    """What one step added to one answer in a chat: `text` is content only, `events` is everything in its order."""

    reasoning: str = ""
    events: tuple[ChatEvent, ...] = ()
