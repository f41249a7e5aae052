"""Conversations into the text a chat model was trained on, through the model's own template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_pio.errors import ChatTemplateError
from inference_pio.plugin.media import ImageSource
from inference_pio.text import rendering
from inference_pio.text.messages import checked_messages, plain
from inference_pio.text.protect import unprotect
from inference_pio.text.tokenizer import Tokenizer
from inference_pio.text.tools import checked_tools

Renderer = Callable[[str, Mapping[str, Any], str], str]
"""Source, values and the model's path to text, with the errors of `rendering.render`."""


@dataclass(frozen=True)
class Written:
    """A conversation ready for its template: `images` are those that its parts hold, in order."""

    source: str
    values: dict[str, Any]
    images: list[ImageSource]


class ChatTemplate:
    """A checkpoint's chat template.

    Special tokens that somebody's text spells are protected (`inference_pio.text.protect`), so that
    `Tokenizer.encode` of the rendered text takes only those for special that the template itself wrote.
    Without such text the result is what Transformers renders, to the character.

    Args:
        tokenizer: holds the template, gives `bos_token` and `eos_token`, and knows what has to be protected.
        path: named in errors.
        renderer: where the template runs.

    Raises:
        ChatTemplateError: the files hold no template.
    """

    def __init__(self, tokenizer: Tokenizer, path: str | Path, renderer: Renderer = rendering.render) -> None:
        self._tokenizer, self._path, self._renderer = tokenizer, path, renderer
        self._reads: frozenset[str] | None = None
        source = tokenizer.chat_template
        if source is None:
            raise ChatTemplateError(
                path,
                "the model has no chat template",
                hint="give the prompt as plain text, or use an instruction-tuned version of the model",
            )
        self._source: str = source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        images: list[ImageSource] | None = None,
    ) -> str:
        """The conversation as text for `tokenizer.encode(…, add_special_tokens=False)`.

        Args:
            messages: objects with `role` (text), `content` (text or a list of parts; an assistant's may be None) and
                whatever else the template reads (`tool_calls`, `reasoning_content`, …).
            add_generation_prompt: end with the opening of the assistant's turn.
            tools: functions the model may call, in OpenAI's shape or without its outer object.
            variables: further values for the template; they cannot replace the ones above.
            images: takes what image parts hold, in order; None where the model does not see.

        Raises:
            UsageError: a message or tool is malformed (named), or the template refuses the conversation (in its
                own words).
            ChatTemplateError: the template cannot be compiled, fails, or uses more loop rounds, time or text than it
                may.
        """
        written = self.write(messages, add_generation_prompt, tools, variables, sees=images is not None)
        if images is not None:
            images += written.images
        return self._renderer(written.source, written.values, str(self._path))

    def write(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        *,
        sees: bool = False,
    ) -> Written:
        """All but the rendering: for who runs templates elsewhere."""
        if tools is not None:
            checked_tools(tools)
        images: list[ImageSource] = []

        def protect(text: str, where: str, from_model: bool) -> str:
            return self._tokenizer.protect(text, where, special_only=from_model)

        values = {
            **{name: _without_marks(name, value) for name, value in (variables or {}).items()},
            "messages": checked_messages(messages, protect, images if sees else None),
            "tools": None if tools is None else plain(tools, "tools", protect),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        for name, token in (
            ("bos_token", self._tokenizer.bos_token),
            ("eos_token", self._tokenizer.eos_token),
        ):
            if token is not None:
                values[name] = token
        return Written(self._source, values, images)

    @property
    def reads(self) -> frozenset[str]:
        """Names of the values that the template looks at."""
        if self._reads is None:
            self._reads = rendering.values_read(self._source, self._path)
        return self._reads


def _without_marks(name: str, value: object) -> Any:
    return plain(value, f"variables.{name}", lambda text, _where, _from_model: unprotect(text))
