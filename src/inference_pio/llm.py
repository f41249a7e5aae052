"""`LLM`: a model for scripts. Names and shapes follow vLLM's offline API, so that a script moves over by its import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from inference_pio.errors import PluginError, SamplingError, UsageError
from inference_pio.outputs import RequestOutput, StreamChunk
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.progress_bar import Bar
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.opened import model_store, open_model
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import ResourceLimits

if TYPE_CHECKING:
    import torch

    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.text.tokenizer import Tokenizer

Prompt = str | Mapping[str, Any]
Message = Mapping[str, Any]


class LLM:
    """One loaded model.

    Args:
        model: a catalogue name, a GGUF file, a directory with config.json and safetensors, or a hub id.
        dtype: "auto" leaves quantised weights in their blocks where the kernels take them; a name asks for dense ones.
        device: "auto", "cpu", "cuda" or "cuda:N".
        max_model_len: prompt and answer together, in tokens; None is what model and memory allow.
        skip_tokenizer_init: take token ids and give token ids.
        enable_prefix_caching: reuse keys and values of equal beginnings.
        seed: for requests that name none; None draws one per request.
        resource_limits: refuse the model where it needs more; threads and disk use follow it.
        progress: called with bytes done, bytes in total and what is being done.
        options: further fields of `RuntimeOptions`: max_num_seqs, quantize, kv_cache_dtype, speculation, mtp, …

    Raises:
        InferencePIOError: the model cannot be found, read or run here; one line says why and what to do.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str | torch.dtype = "auto",
        device: str = "auto",
        max_model_len: int | None = None,
        skip_tokenizer_init: bool = False,
        enable_prefix_caching: bool = True,
        seed: int | None = None,
        resource_limits: ResourceLimits | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> None:
        unknown = sorted(set(options) - RuntimeOptions.names())
        if unknown:
            raise UsageError(
                f"LLM does not know {', '.join(unknown)}; options: {', '.join(sorted(RuntimeOptions.names()))}"
            )
        options |= {"max_model_len": max_model_len, "skip_tokenizer_init": skip_tokenizer_init}
        self._seed = seed
        store = model_store(resource_limits)
        with ExitStack() as undo:
            opened = open_model(model, RuntimeOptions(**options), progress, store)
            undo.callback(opened.checkpoint.close)
            manifest = default_registry().for_checkpoint(opened.raw, str(opened.source.path))
            self._runtime = LocalRuntime(opened)
            self.plugin: ModelPlugin = default_registry().create(manifest.name, runtime=self._runtime)
            undo.callback(self.plugin.cleanup)
            config = self.plugin.config_class(
                model_path=str(opened.source.path),
                model_name=opened.source.name,
                device=device,
                torch_dtype=dtype,
                use_prefix_caching=enable_prefix_caching,
            )
            limits = {"resource_limits": resource_limits} if resource_limits is not None else {}
            if not self.plugin.initialize(config=config, progress=progress, **limits, **options):
                raise self.plugin.last_error or PluginError(f"{manifest.name!r} could not be initialised")
            self.plugin.load_model()
            undo.pop_all()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Continue one prompt or many; results in the order of the prompts.

        Args:
            prompts: texts, or mappings `{"prompt": …}` or `{"prompt_token_ids": […]}`.
            sampling_params: one for all, or one per prompt; vLLM's defaults where None.
            use_tqdm: show a progress bar on stderr (vLLM's name for it).
        """
        many: Sequence[Prompt] = [prompts] if isinstance(prompts, (str, Mapping)) else prompts
        if not isinstance(many, Sequence) or not many:
            raise UsageError("generate takes a prompt or a list of prompts, and got none")
        params = self._params(sampling_params, len(many))
        plain = [_prompt(prompt) for prompt in many]
        if not use_tqdm:
            return self._runtime.generate(plain, params)
        with Bar("prompts", len(plain)) as bar:
            return self._runtime.generate(plain, params, on_finished=bar.advance)

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
        """Answer one conversation or many, formatted by the model's own chat template."""
        one = bool(messages) and isinstance(messages[0], Mapping)
        conversations: Sequence[Any] = [messages] if one else messages
        prompts = [
            self.format_chat(
                conversation,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                chat_template_kwargs=chat_template_kwargs,
            )
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Iterator[StreamChunk]:
        """Chunks of whole characters as they are generated; closing the iterator cancels the request."""
        return self._runtime.stream(_prompt(prompt), self._params(sampling_params, 1)[0])

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
            **(chat_template_kwargs or {}),
        )

    @property
    def max_model_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._runtime.plan.max_model_len

    def get_tokenizer(self) -> Tokenizer:
        return self._runtime.text.tokenizer

    def close(self) -> None:
        """Stop the engine and release the model."""
        self.plugin.cleanup()

    def _params(
        self, params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        many = (
            [params or SamplingParams()] * count
            if params is None or isinstance(params, SamplingParams)
            else [*params]
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


def _prompt(prompt: Prompt) -> str | Sequence[int]:
    """A text or token ids, out of any spelling of a prompt."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        if isinstance(ids := prompt.get("prompt_token_ids"), Sequence) and not isinstance(ids, str):
            return ids
        if isinstance(text := prompt.get("prompt"), str):
            return text
    raise UsageError(
        f"a prompt is a text, {{'prompt': …}} or {{'prompt_token_ids': […]}}, got {prompt!r:.60}"
    )
