"""The text side of a model: its tokenizer, its chat template, and how a prompt becomes token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_pio.errors import UsageError
from inference_pio.loader.gguf import GGUFFile
from inference_pio.plugin.facts import ChatFormat
from inference_pio.plugin.media import ImageSource
from inference_pio.plugin.runtime import FormattedPrompt
from inference_pio.runtime.opened import OpenedModel
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.protect import unprotect
from inference_pio.text.reading import AnswerReader, checked_options
from inference_pio.text.tokenizer import Tokenizer


class TextSide:
    """Tokenizer and chat template of one checkpoint, whose model may see images (`sees`)."""

    def __init__(self, tokenizer: Tokenizer, chat_format: ChatFormat, path: str, sees: bool) -> None:
        self.tokenizer, self._format, self._path, self._sees = tokenizer, chat_format, path, sees
        self._template: ChatTemplate | None = None

    @classmethod
    def of(cls, opened: OpenedModel, chat_format: ChatFormat, sees: bool) -> TextSide:
        path = opened.source.path
        if isinstance(opened.checkpoint, GGUFFile):
            tokenizer = Tokenizer.from_gguf(opened.checkpoint.metadata, path)
        else:
            tokenizer = Tokenizer.from_directory(path if path.is_dir() else path.parent)
        return cls(tokenizer, chat_format, str(path), sees)

    @property
    def end_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer: those the checkpoint names, and the architecture's end-of-turn tokens it has."""
        turns = (self.tokenizer.token_to_id(token) for token in self._format.end_of_turn)
        return frozenset(self.tokenizer.eos_token_ids) | {
            token_id for token_id in turns if token_id is not None
        }

    def encode(self, prompt: str | Sequence[int]) -> tuple[str | None, list[int]]:
        """(text, token ids) of a prompt that is either."""
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, add_special_tokens=not isinstance(prompt, FormattedPrompt))
            if not ids:
                raise UsageError("the prompt is empty")
            return unprotect(prompt), ids
        return None, list(prompt)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> FormattedPrompt:
        """What the checkpoint's chat template makes of a conversation; `options` are the caller's values for it."""
        if self._template is None:
            self._template = ChatTemplate(self.tokenizer, self._path)
        if tools is not None and "tools" not in self._template.reads:
            raise UsageError(
                "this model's chat template shows the model no tools: leave them out, or describe them in a message"
            )
        given = checked_options(options or {}, self._format.template_options, self._template.reads)
        images: list[ImageSource] = []
        text = self._template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables={**self._format.template_variables, **given},
            images=images if self._sees else None,
        )
        return FormattedPrompt(text, images)

    def reader(self, tools: Sequence[Mapping[str, Any]] | None = None) -> AnswerReader:
        """How answers to such a prompt are read."""
        return AnswerReader(self._format, self.tokenizer, tools)
