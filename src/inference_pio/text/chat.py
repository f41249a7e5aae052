"""Conversations into the text a chat model was trained on, through the model's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError

from inference_pio.errors import ChatTemplateError, UsageError
from inference_pio.plugin.media import ImageSource
from inference_pio.text.messages import checked_messages, plain
from inference_pio.text.protect import unprotect
from inference_pio.text.sandbox import (
    MAX_OUTPUT,
    TemplateLimit,
    TemplateRaised,
    compile_template,
    limited,
    variables_of,
)
from inference_pio.text.tokenizer import Tokenizer
from inference_pio.text.tools import checked_tools

_MAX_SOURCE = 1 << 20


class ChatTemplate:
    """A compiled chat template.

    Special tokens that somebody's text spells are protected (`inference_pio.text.protect`), so that
    `Tokenizer.encode` of the rendered text takes only those for special that the template itself wrote.
    Without such text the result is what Transformers renders, to the character.

    Args:
        tokenizer: holds the template, gives `bos_token` and `eos_token`, and knows what has to be protected.
        path: named in errors.

    Raises:
        ChatTemplateError: the files hold no template, or none that can be compiled.
    """

    def __init__(self, tokenizer: Tokenizer, path: str | Path) -> None:
        self._tokenizer, self._path = tokenizer, path
        self._reads: frozenset[str] | None = None
        source = tokenizer.chat_template
        if source is None:
            raise ChatTemplateError(
                path,
                "the model has no chat template",
                hint="give the prompt as plain text, or use an instruction-tuned version of the model",
            )
        if len(source) > _MAX_SOURCE:
            raise self._error(f"has {len(source)} characters, more than {_MAX_SOURCE}")
        try:
            self._template = compile_template(source)
        except jinja2.TemplateSyntaxError as error:
            raise self._error(f"line {error.lineno}: {_line(error)}") from error
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
            raise self._error(_line(error)) from error

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
            messages: objects with `role` (text) and `content` (text, None, or a list of parts), and
                whatever else the template reads (`tool_calls`, `reasoning_content`, …).
            add_generation_prompt: end with the opening of the assistant's turn.
            tools: functions the model may call, in OpenAI's shape or without its outer object.
            variables: further values for the template; they cannot replace the ones above.
            images: takes what image parts hold, in order; None where the model does not see.

        Raises:
            UsageError: a message or tool is malformed (named), or the template refuses the conversation (in its
                own words).
            ChatTemplateError: the template fails, or uses more loop rounds, time or text than it may.
        """

        if tools is not None:
            checked_tools(tools)

        def protect(text: str, where: str, from_model: bool) -> str:
            return self._tokenizer.protect(text, where, special_only=from_model)

        values = {
            **{name: _without_marks(name, value) for name, value in (variables or {}).items()},
            "messages": checked_messages(messages, protect, images),
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
        return self._run(values)

    @property
    def reads(self) -> frozenset[str]:
        """Names of the values that the template looks at."""
        if self._reads is None:
            self._reads = variables_of(self._tokenizer.chat_template or "")
        return self._reads

    def _run(self, values: Mapping[str, Any]) -> str:
        try:
            with limited():
                return _collect(self._template, values)
        except TemplateRaised as error:
            raise UsageError(f"the model's chat template refuses the messages: {_line(error)}") from error
        except TemplateLimit as error:
            raise self._error(f"the template {_line(error)}") from error
        except SecurityError as error:
            raise self._error(f"the template does what its sandbox forbids: {_line(error)}") from error
        except (
            jinja2.TemplateError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise self._error(f"the template fails on these messages: {_line(error)}") from error
        except (RecursionError, MemoryError) as error:
            raise self._error(f"the template needs too much: {type(error).__name__}") from error

    def _error(self, what: str) -> ChatTemplateError:
        return ChatTemplateError(
            self._path, what, where="chat template", hint="give the prompt as plain text to do without it"
        )


def _collect(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    size = 0
    for part in template.generate(values):
        size += len(part)
        if size > MAX_OUTPUT:
            raise TemplateLimit(f"writes more than {MAX_OUTPUT} characters")
        parts.append(part)
    return "".join(parts)


def _without_marks(name: str, value: object) -> Any:
    return plain(value, f"variables.{name}", lambda text, _where, _from_model: unprotect(text))


def _line(error: BaseException) -> str:
    return unprotect(" ".join(str(error).split()))[:300] or type(error).__name__
