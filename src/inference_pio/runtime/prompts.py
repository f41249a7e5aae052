"""The text side of a model: its tokenizer, its chat template, and how a prompt becomes token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from inference_pio.errors import UsageError
from inference_pio.loader.gguf import GGUFFile
from inference_pio.multimodal.image import Decoder
from inference_pio.multimodal.prompt import fill_placeholders
from inference_pio.plugin.facts import ChatFormat
from inference_pio.plugin.media import MediaProcessor
from inference_pio.plugin.runtime import EncodedPrompt, FormattedPrompt, ImagePrompt, RuntimePrompt
from inference_pio.runtime.opened import OpenedModel
from inference_pio.text.chat import ChatTemplate, Renderer, Written
from inference_pio.text.messages import check_switches
from inference_pio.text.protect import unprotect
from inference_pio.text.reading import AnswerReader, checked_options
from inference_pio.text.rendering import render
from inference_pio.text.tokenizer import Tokenizer
from inference_pio.text.tools import checked_tools


class TextSide:
    """Tokenizer and chat template of one checkpoint, whose model may see images (`sees`)."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        path: str,
        sees: bool,
        renderer: Renderer = render,
    ) -> None:
        """`renderer` is where the chat template runs."""
        self.tokenizer, self._format, self._path, self._sees = tokenizer, chat_format, path, sees
        self._renderer = renderer
        self._template: ChatTemplate | None = None

    @classmethod
    def of(
        cls, opened: OpenedModel, chat_format: ChatFormat, sees: bool, renderer: Renderer = render
    ) -> TextSide:
        path = opened.source.path
        if isinstance(opened.checkpoint, GGUFFile):
            tokenizer = Tokenizer.from_gguf(opened.checkpoint.metadata, path)
        else:
            tokenizer = Tokenizer.from_directory(path if path.is_dir() else path.parent)
        return cls(tokenizer, chat_format, str(path), sees, renderer)

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
        written = self.write(messages, add_generation_prompt, tools, options)
        return FormattedPrompt(self._renderer(written.source, written.values, self._path), written.images)

    def write(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Written:
        """The template and its values: for who runs it elsewhere."""
        if self._template is None:
            self._template = ChatTemplate(self.tokenizer, self._path)
        check_switches(add_generation_prompt, options)
        if tools is not None:
            checked_tools(tools)
        if tools is not None and "tools" not in self._template.reads:
            raise UsageError(
                "this model's chat template shows the model no tools: leave them out, or describe them in a message"
            )
        given = checked_options(options or {}, self._format.template_options, self._template.reads)
        return self._template.write(
            messages,
            add_generation_prompt,
            tools,
            {**self._format.template_variables, **given},
            sees=self._sees,
        )

    def reader(self, tools: Sequence[Mapping[str, Any]] | None = None) -> AnswerReader:
        """How answers to such a prompt are read."""
        return AnswerReader(self._format, self.tokenizer, tools)


def encoded(
    prompt: RuntimePrompt,
    side: TextSide | None,
    processor: MediaProcessor | None,
    name: str,
    max_tokens: int,
    decoder: Decoder,
) -> EncodedPrompt:
    """Token ids of a prompt for the model `name`; `processor` reads images, where the model sees, and
    `decoder` is where their files are decoded."""
    if isinstance(prompt, EncodedPrompt):
        if type(prompt) is not EncodedPrompt:
            raise UsageError("the prompt was encoded for a model in a worker, which has its images")
        if prompt.media is not None and processor is None:
            raise UsageError("this model takes text only, and the prompt has images")
        return prompt
    images = prompt.images if isinstance(prompt, (FormattedPrompt, ImagePrompt)) else ()
    written = prompt.prompt if isinstance(prompt, ImagePrompt) else prompt
    text, ids = _encoded_text(written, side) if isinstance(written, str) else (None, list(written))
    if processor is None:
        if images:
            raise UsageError(f"{images[0].where}: {name} takes text only, not images")
        return EncodedPrompt(text, ids)
    fill = partial(fill_placeholders, ids, images, processor, max_tokens=max_tokens, decoder=decoder)
    if not images:
        return EncodedPrompt(text, *fill())
    with ThreadPoolExecutor(1) as pool:  # a caller's thread that computed would keep OpenMP workers
        return EncodedPrompt(text, *pool.submit(fill).result())


def _encoded_text(text: str, side: TextSide | None) -> tuple[str | None, list[int]]:
    if side is None:
        raise UsageError("this model was loaded without a tokenizer: give prompt_token_ids, take token_ids")
    return side.encode(text)
