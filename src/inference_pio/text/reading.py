"""How the answers of one checkpoint are read: what its chat template knows of what its architecture can write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from inference_pio.errors import UsageError, shown
from inference_pio.outputs import (
    ChatChunk,
    ChatEvent,
    CompletionOutput,
    ContentDelta,
    FunctionCall,
    ReasoningDelta,
    StreamChunk,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
)
from inference_pio.plugin.facts import ChatFormat
from inference_pio.text.answer import AnswerParser
from inference_pio.text.calls import syntax_of
from inference_pio.text.tokenizer import Tokenizer
from inference_pio.text.tools import check_size, checked_tools

# What the engine sets for a template, or Transformers for its own methods: no caller's options.
_RESERVED = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "chat_template",
    }
    | {"bos_token", "eos_token"}
)


class AnswerReader:
    """Makes a parser for each answer to a prompt.

    Args:
        tools: those the prompt was made with; without them no calls are looked for.
    """

    def __init__(
        self, chat_format: ChatFormat, tokenizer: Tokenizer, tools: Sequence[Mapping[str, Any]] | None
    ) -> None:
        template = tokenizer.chat_template or ""
        thinks = chat_format.reasoning is not None and chat_format.reasoning.end in template
        self._reasoning = chat_format.reasoning if thinks else None
        self._syntax = syntax_of(chat_format.tool_calls, template) if tools is not None else None
        self._schemas = checked_tools(tools) if tools is not None else {}
        markers = (
            *((self._reasoning.start, self._reasoning.end) if self._reasoning else ()),
            *(self._syntax.markers if self._syntax else ()),
        )
        ids = (tokenizer.token_to_id(marker) for marker in markers)
        self.kept = frozenset(token_id for token_id in ids if token_id is not None)
        """Markers that are single tokens: they have to stay in the text even where special tokens are left out."""

    @property
    def finds_calls(self) -> bool:
        """Whether the template writes calls in a syntax that the architecture's format states."""
        return self._syntax is not None

    def parser(self, prompt: str) -> AnswerParser:
        """For one answer to a prompt that `ChatTemplate.render` made."""
        reasoning = self._reasoning
        thinking = reasoning is not None and prompt.rstrip().endswith(reasoning.start)
        return AnswerParser(reasoning, thinking=thinking, syntax=self._syntax, schemas=self._schemas)

    def read(self, prompt: str, output: CompletionOutput) -> None:
        """Tell an answer's text apart, in place."""
        parser = self.parser(prompt)
        output.reasoning, output.text, output.tool_calls = gathered(
            [*parser.feed(output.text), *parser.finish()]
        )


def chunk_of(parser: AnswerParser, chunk: StreamChunk) -> ChatChunk:
    """A chunk of text as what it says."""
    events = parser.feed(chunk.text)
    if chunk.finish_reason is not None:
        events += parser.finish()
    reasoning, text, _ = gathered(events)
    return ChatChunk(**{**vars(chunk), "text": text}, reasoning=reasoning or "", events=tuple(events))


def gathered(events: Iterable[ChatEvent]) -> tuple[str | None, str, list[ToolCall] | None]:
    """(thoughts, content, calls) of a whole answer; None for what there is none of."""
    thoughts: list[str] = []
    content: list[str] = []
    calls: list[ToolCall] = []
    for event in events:
        if isinstance(event, ReasoningDelta):
            thoughts.append(event.text)
        elif isinstance(event, ContentDelta):
            content.append(event.text)
        elif isinstance(event, ToolCallStart):
            calls.append(ToolCall(event.id, FunctionCall(event.name, "")))
        elif isinstance(event, ToolCallArguments):
            function = calls[-1].function
            calls[-1] = replace(
                calls[-1], function=replace(function, arguments=function.arguments + event.text)
            )
    return "".join(thoughts) or None, "".join(content), calls or None


def checked_options(
    options: Mapping[str, Any], known: Mapping[str, type], read: frozenset[str]
) -> dict[str, Any]:
    """A caller's values for a chat template.

    Args:
        known: what the architecture's templates take, with types.
        read: what this template looks at.

    Raises:
        UsageError: a value belongs to the engine, has no effect on this model, is of the wrong type or too large.
    """
    for name, value in options.items():
        if name in _RESERVED:
            raise UsageError(f"chat_template_kwargs: {shown(name)} is not the caller's to set")
        if name in known and not isinstance(value, known[name]):
            raise UsageError(
                f"chat_template_kwargs: {name} must be {known[name].__name__}, got {shown(value)}"
            )
        if name not in known and name not in read:
            options_there_are = ", ".join(sorted(known)) or "none"
            raise UsageError(
                f"chat_template_kwargs: this model's chat template does not read {shown(name)} "
                f"(options: {options_there_are})"
            )
    check_size(options, "chat_template_kwargs")
    return dict(options)
