"""`LLM`: a model for scripts. Names and shapes follow vLLM's offline API, so that a script moves over by its import."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from inference_pio.errors import EngineClosed, PluginError, SamplingError, UsageError, shown
from inference_pio.imports import import_object
from inference_pio.outputs import ChatChunk, RequestOutput, StreamChunk
from inference_pio.plugin.prompts import Prompt, plain_prompt
from inference_pio.plugin.runtime import (
    EncodedPrompt,
    Progress,
    Reading,
    RuntimeOptions,
)
from inference_pio.plugin.starting import Starter, StartRequest
from inference_pio.progress_bar import Bar
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import ResourceLimits, SecurityLevel
from inference_pio.security.held import limits_here

if TYPE_CHECKING:
    import torch

    from inference_pio.config import BaseModelConfig, Profile
    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.plugin.runtime import Runtime, TextTokenizer
    from inference_pio.runtime.settle import Settled

T = TypeVar("T")
_log = logging.getLogger("inference_pio")
_HERE = "inference_pio.runtime.start:run_here"
_IN_A_WORKER = "inference_pio.worker.start:run_in_a_worker"
Message = Mapping[str, Any]


class LLM:
    """One loaded model.

    Args:
        model: a catalogue name, a GGUF file, a directory with config.json and safetensors, or a hub id.
        dtype: "auto" leaves quantised weights in their blocks where the kernels take them; a name asks for dense ones.
            None is the profile's, without one "auto".
        device: "auto", "cpu", "cuda" or "cuda:N".
        max_model_len: prompt and answer together, in tokens; None is what model and memory allow.
        plugin: the name of the plugin to run it with; None is the one for its architecture. "transformers" is the
            bridge to Transformers' own modules, which runs architectures that have none.
        skip_tokenizer_init: take token ids and give token ids.
        enable_prefix_caching: reuse keys and values of equal beginnings; None: unless the profile says otherwise.
        seed: for requests that name none; None draws one per request.
        security_level: how far the model's plugin is trusted; None: one that comes with this package to the most, in
            this process, and one of others least. Below MAXIMUM_TRUST it runs in a locked process of its own.
        enforcement: "strict" refuses a model whose limits nothing holds on this machine, "best_effort" runs it and says
            so; None: strict below HIGH_TRUST.
        resource_limits: what the model may use, which is then held in a process of its own.
        progress: called with bytes done, bytes in total and what is being done.
        profile: "latency", "throughput", "memory" or "quality": configuration and options where none is named.
        tuned: options that are not named are those that `inference-pio tune` found best for this checkpoint on this
            machine, for the profile or whatever it was run for last.
        options: further fields of `RuntimeOptions`: fit, max_num_seqs, quantize, kv_cache_dtype, speculation, mtp, …

    Raises:
        InferencePIOError: the model cannot be found, read or run here; one line says why and what to do.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str | torch.dtype | None = None,
        device: str = "auto",
        max_model_len: int | None = None,
        plugin: str | None = None,
        skip_tokenizer_init: bool = False,
        enable_prefix_caching: bool | None = None,
        seed: int | None = None,
        security_level: SecurityLevel | None = None,
        enforcement: str | None = None,
        resource_limits: ResourceLimits | None = None,
        progress: Progress | None = None,
        profile: str | Profile | None = None,
        tuned: bool = True,
        **options: Any,
    ) -> None:
        unknown = sorted(set(options) - RuntimeOptions.names())
        if unknown:
            raise UsageError(
                f"LLM does not know {', '.join(unknown)}; options: {', '.join(sorted(RuntimeOptions.names()))}"
            )
        options |= {"skip_tokenizer_init": skip_tokenizer_init} | _named(max_model_len=max_model_len)
        config = _named(torch_dtype=dtype, use_prefix_caching=enable_prefix_caching) | {"device": device}
        self._seed = seed
        held = limits_here() is not None  # this process, to the limits that there are
        here = security_level in (None, SecurityLevel.MAXIMUM_TRUST) and (resource_limits is None or held)
        starter: Starter = import_object(_HERE if here else _IN_A_WORKER)
        running = starter(
            StartRequest(
                model,
                plugin,
                options,
                config,
                profile,
                tuned,
                security_level,
                enforcement,
                resource_limits,
                progress,
            )
        )
        self._running, self._closed = running, False
        for warning in running.warnings:
            _log.warning("%s", warning)
        for note in running.notes:
            _log.info("%s: %s", running.name, note)

    @property
    def plugin(self) -> ModelPlugin:
        """The model's plugin.

        Raises:
            PluginError: it runs in a worker.
        """
        return self._here(self._running.plugin, "plugin")

    @property
    def settled(self) -> Settled:
        """The options that it runs with, and where they come from.

        Raises:
            PluginError: it runs in a worker.
        """
        return self._here(self._running.settled, "settled")

    @property
    def config(self) -> BaseModelConfig:
        """The model's configuration; of a model in a worker the standard's fields."""
        return self._running.config

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to tell about how it runs, a line each."""
        return self._running.notes

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` and `format_chat` are of use."""
        return self._runtime.has_chat_template

    def compute_stats(self) -> dict[str, float]:
        """Seconds, steps and tokens since it was loaded."""
        return self._runtime.compute_stats()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Continue one prompt or many; results in the order of the prompts.

        Args:
            prompts: texts, or mappings `{"prompt": …}` or `{"prompt_token_ids": […]}`; for a model that sees with
                `"multi_modal_data": {"image": …}`, one image or a list of them, each a path, the bytes of a file, a
                data: URL or an image of Pillow's, and the model's placeholder once for each in the prompt.
            sampling_params: one for all, or one per prompt; vLLM's defaults where None.
            use_tqdm: show a progress bar on stderr (vLLM's name for it).
        """
        return self._generate(prompts, sampling_params, use_tqdm)

    def _generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        use_tqdm: bool,
        reading: Reading | None = None,
    ) -> list[RequestOutput]:
        many: Sequence[Prompt] = [prompts] if isinstance(prompts, (str, Mapping, EncodedPrompt)) else prompts
        if not isinstance(many, Sequence) or not many:
            raise UsageError("generate takes a prompt or a list of prompts, and got none")
        params = self._params(sampling_params, len(many))
        plain = [plain_prompt(prompt) for prompt in many]
        if not use_tqdm:
            return self._runtime.generate(plain, params, reading=reading)
        with Bar("prompts", len(plain)) as bar:
            return self._runtime.generate(plain, params, on_finished=bar.advance, reading=reading)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation or many, formatted by the model's own chat template, and read the answers.

        Args:
            messages: one conversation, or a list of them: objects with `role` and `content`; assistants' also with
                `reasoning` and `tool_calls` as they came out, tools' results with `role` "tool" and `tool_call_id`.
                A model that sees takes parts `{"type": "image", "image": …}` and OpenAI's
                `{"type": "image_url", "image_url": {"url": …}}` beside those of text; nothing is fetched for them.
            tools: functions the model may call, in OpenAI's shape, for all conversations.
            chat_template_kwargs: values for the template, such as `{"enable_thinking": False}`.

        Returns:
            Outputs whose `text` is content only, with `reasoning` and `tool_calls` beside it.
        """
        several = _is_list(messages) and bool(messages) and _is_list(messages[0])
        conversations: Sequence[Any] = messages if several else [messages]
        prompts = [
            self.format_chat(
                conversation,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                chat_template_kwargs=chat_template_kwargs,
            )
            for conversation in conversations
        ]
        return self._generate(prompts, sampling_params, use_tqdm, Reading(tools))

    def stream_chat(
        self,
        messages: Sequence[Message] | str | EncodedPrompt,
        sampling_params: SamplingParams | None = None,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Iterator[ChatChunk]:
        """`chat` for one conversation, as it comes; closing the iterator cancels the request.

        Args:
            messages: a conversation, or the prompt that `format_chat` made of one with the same `tools`, or its ids.
        """
        prompt = (
            messages
            if isinstance(messages, (str, EncodedPrompt))
            else self.format_chat(
                messages,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                chat_template_kwargs=chat_template_kwargs,
            )
        )
        chunks = self._runtime.stream(prompt, self._params(sampling_params, 1)[0], Reading(tools))
        return cast(Iterator[ChatChunk], chunks)

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Iterator[StreamChunk]:
        """Chunks of whole characters as they are generated; closing the iterator cancels the request."""
        return self._runtime.stream(plain_prompt(prompt), self._params(sampling_params, 1)[0])

    def encode_prompt(self, prompt: Prompt) -> EncodedPrompt:
        """The token ids that the engine makes of a prompt, its images read; give it to `generate` or `stream`."""
        return self._runtime.encode(plain_prompt(prompt))

    def format_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that the chat template makes of a conversation; give it to `generate` or `stream`."""
        return self._runtime.render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            options=chat_template_kwargs,
        )

    @property
    def max_model_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._runtime.max_model_len

    def get_tokenizer(self) -> TextTokenizer:
        return self._runtime.tokenizer

    def close(self) -> None:
        """Stop the engine and release the model."""
        self._closed = True
        plugin = self._running.plugin
        if plugin is not None:  # it holds the model too
            plugin.cleanup()
        else:
            self._running.runtime.close()

    @property
    def _runtime(self) -> Runtime:
        if self._closed:
            raise EngineClosed("the model is closed: make a new one")
        return self._running.runtime

    @staticmethod
    def _here(found: T | None, name: str) -> T:
        if found is None:
            raise PluginError(f"the model runs in a worker: its {name} cannot be reached from here")
        return found

    def _params(
        self, params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        one = SamplingParams() if params is None else params
        many = [one] * count if not isinstance(one, Sequence) else [*one]
        for each in many:
            if not isinstance(each, SamplingParams):
                raise SamplingError(
                    f"sampling_params are SamplingParams or a list of them, got {shown(each)}"
                )
        if len(many) != count:
            raise SamplingError(
                f"{count} prompts and {len(many)} sampling parameters: give one, or one per prompt"
            )
        if self._seed is None:
            return many
        return [replace(one, seed=self._seed) if one.seed is None else one for one in many]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _named(**values: Any) -> dict[str, Any]:
    """Those that the caller gave."""
    return {name: value for name, value in values.items() if value is not None}
