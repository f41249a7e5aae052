"""What comes back: typed results with vLLM's names and shapes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

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
