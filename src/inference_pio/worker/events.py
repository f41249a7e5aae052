"""What an answer in a chat says, on its way from a worker."""

from __future__ import annotations

from inference_pio.outputs import (
    ChatEvent,
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from inference_pio.worker.messages import Event


def written(event: ChatEvent) -> Event:
    """As it is sent; a call's name is the text with which it begins."""
    match event:
        case ReasoningDelta(text):
            return Event("reasoning", text)
        case ContentDelta(text):
            return Event("content", text)
        case ToolCallStart(index, call, name):
            return Event("call", name, index, call)
        case ToolCallArguments(index, text):
            return Event("arguments", text, index)
        case ToolCallEnd(index):
            return Event("end", index=index)


def read(event: Event) -> ChatEvent:
    """As it was."""
    match event.kind:
        case "reasoning":
            return ReasoningDelta(event.text)
        case "content":
            return ContentDelta(event.text)
        case "call":
            return ToolCallStart(event.index, event.id, event.text)
        case "arguments":
            return ToolCallArguments(event.index, event.text)
        case "end":
            return ToolCallEnd(event.index)
