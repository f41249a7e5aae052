"""The seam between a plugin and what runs it: the standard's methods call a `Runtime`, wherever it lives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

from inference_pio.errors import UsageError, shown
from inference_pio.plugin.media import ImageSource, PromptMedia
from inference_pio.plugin.quantization import Quantization

if TYPE_CHECKING:
    from torch import nn

    from inference_pio.config import BaseModelConfig
    from inference_pio.metrics import PerformanceMetrics
    from inference_pio.outputs import RequestOutput, StreamChunk
    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.plugin.facts import TechniqueFact
    from inference_pio.sampling_params import SamplingParams
    from inference_pio.security import EnforcementReport, ResourceLimits, SecurityLevel

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in total, and what is being done."""


class FormattedPrompt(str):
    """Text that a chat template made: whatever special tokens the model wants in front are in it already.

    images  of the conversation, in the order of their placeholders in the text
    """

    __slots__ = ("images",)
    images: tuple[ImageSource, ...]

    def __new__(cls, text: str, images: Sequence[ImageSource] = ()) -> Self:
        made = super().__new__(cls, text)
        made.images = tuple(images)
        return made


@dataclass(frozen=True)
class ImagePrompt:
    """A text or token ids with the model's placeholder once for each image."""

    prompt: str | Sequence[int]
    images: tuple[ImageSource, ...]


@dataclass(frozen=True)
class EncodedPrompt:
    """What the engine computes: token ids, placeholders filled, and images; `text` where the prompt was one."""

    text: str | None
    token_ids: list[int]
    media: PromptMedia | None = None


@dataclass(frozen=True)
class Reading:
    """Answers are read as those of a chat: thoughts, content and calls of `tools` told apart. Without tools no calls
    are looked for.
    """

    tools: Sequence[Mapping[str, Any]] | None = None


RuntimePrompt = str | Sequence[int] | ImagePrompt | EncodedPrompt


KV_DTYPES = ("auto", "float32", "bfloat16", "int8", "int4")
EXPERTS = ("auto", "memory", "disk")
_FROM_ONE = ("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens", "block_size")
_FROM_ONE_OR_NONE = ("max_model_len", "kv_cache_budget", "keep_vocabulary", "threads")
LEAST_ATTENTION = 96  # keys: the first 32 and the last 64 are read always
QUALITIES = ("exact", "faithful", "fast")
DEFAULT_RUNTIME = "inference_pio.runtime.local:LocalRuntime"
WORKER_RUNTIME = "inference_pio.worker.runtime:WorkerRuntime"


@dataclass(frozen=True)
class RuntimeOptions:
    """How the engine runs a model, whichever model it is.

    max_model_len           prompt and answer together, in tokens; None: what the model and the memory allow
    max_num_seqs            sequences that decode at once
    max_num_batched_tokens  tokens of one step; longer prompts are cut into chunks. 512 are enough for all a CPU can do,
                            and what lies between two operations stays in its caches; a GPU may want more
    block_size              tokens of one KV block
    speculation             tokens of one sequence that are guessed ahead in one step at most; 0: none
    mtp                     where the checkpoint has a layer that predicts further tokens and speculation is on, that
                            layer is loaded and guesses too (multi-token prediction)
    threads                 compute threads; None: as many as torch takes by itself, one for each core
    kv_cache_memory_gb      KV memory in GB, beside the state of sequences where a model keeps any; None: from the
                            memory that is free, at most 4 GiB
    kv_cache_dtype          "float32", "bfloat16", "int8" or "int4" (whole numbers, one scale per token and head, on a
                            CPU) or "auto": bfloat16 where weights are packed, else the model's dtype
    kv_cache_budget         tokens of one sequence that stay in the cache at most, once its prompt is computed: of a
                            longer one those stay that its end attends to (KV-cache eviction); None: all
    quantize                "int8" or "int4" (":64" and the like for the group size): weights with more bits are
                            rounded when they are loaded; None: as the checkpoint has them
    experts                 where experts in blocks lie: "memory"; "disk", in a file of the model cache that is mapped,
                            of which the system keeps in memory what is used, as far as there is room; or "auto": on
                            the disk where they do not fit into memory
    prefix_cache_disk_gb    GB of the model cache for cached prefixes that memory has no room for, or that it held when
                            the model was closed; they outlive the process. 0: none. Whoever can read the files can
                            find out what the prompts were
    explain_cache           say of each request why the prefix cache gave what it gave and no more
    resident_weights_gb     the most weights that are in memory at a time, in GB (CPU): layers beyond it are read from a
                            file of the model cache when they are used, ahead of time; None: no limit of its own
    quality                 "exact", "faithful" or "fast": how far approximate techniques may move answers; they act
                            where this checkpoint's receipt says that they stay within (inference-pio calibrate)
    attention_budget        keys that a query reads where only some are read (sparse_decode, sparse_prefill and
                            sink_window), the first 32 and the last ones among them
    fit                     where the plan does not fit into memory, or holds no context of use, do without what it
                            takes, from what costs nothing to what costs the most (docs/optimisations.md)
    enable, disable         techniques by name: at work whatever a receipt says, or not at work
    allow_untested          techniques may be at work together that nobody has tested together
    tensor_parallel_size    ranks, threads of this process, that share the weights, unless use_tensor_parallelism is off
    keep_vocabulary         so many of the first tokens, and the last thousand, have logits of their own; None: all
    skip_tokenizer_init     token ids in, token ids out
    accept_licence          the caller accepts the licence of a model that asks for it
    download                fetch what is not on this machine
    """

    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    block_size: int = 32
    speculation: int = 15
    mtp: bool = True
    threads: int | None = None
    kv_cache_memory_gb: float | None = None
    kv_cache_dtype: str = "auto"
    kv_cache_budget: int | None = None
    quantize: str | None = None
    experts: str = "auto"
    prefix_cache_disk_gb: float = 0
    explain_cache: bool = False
    resident_weights_gb: float | None = None
    quality: str = "faithful"
    attention_budget: int = 1024
    fit: bool = False
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    allow_untested: bool = False
    tensor_parallel_size: int = 1
    keep_vocabulary: int | None = None
    skip_tokenizer_init: bool = False
    accept_licence: bool = False
    download: bool = True

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_words()

    def _check_numbers(self) -> None:
        lowest = dict.fromkeys(_FROM_ONE, 1) | {"speculation": 0, "attention_budget": LEAST_ATTENTION}
        lowest |= {name: 1 for name in _FROM_ONE_OR_NONE if getattr(self, name) is not None}
        for name, low in lowest.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise UsageError(f"{name} must be a whole number from {low} up, got {shown(value)}")
        for name in ("mtp", "allow_untested", "fit"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be True or False, got {shown(getattr(self, name))}")
        for name in ("kv_cache_memory_gb", "resident_weights_gb"):
            gigabytes = getattr(self, name)
            if gigabytes is not None and not (_is_finite(gigabytes) and gigabytes > 0):
                raise UsageError(f"{name} must be above 0 and finite, got {shown(gigabytes)}")
        gigabytes = self.prefix_cache_disk_gb
        if not (_is_finite(gigabytes) and gigabytes >= 0):
            raise UsageError(f"prefix_cache_disk_gb must be at least 0 and finite, got {shown(gigabytes)}")

    def _check_words(self) -> None:
        words = {"kv_cache_dtype": KV_DTYPES, "experts": EXPERTS, "quality": QUALITIES}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} must be one of {', '.join(allowed)}, got {shown(getattr(self, name))}"
                )
        for name in ("enable", "disable"):
            techniques = getattr(self, name)
            several = isinstance(techniques, Iterable) and not isinstance(techniques, str)
            if not several or not all(isinstance(one, str) for one in techniques):
                raise UsageError(f"{name} takes a list of names of techniques, got {shown(techniques)}")
        if self.quantize is not None:
            Quantization.parse(self.quantize)

    @classmethod
    def names(cls) -> frozenset[str]:
        return frozenset(field.name for field in fields(cls))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class TextTokenizer(Protocol):
    """What every runtime offers of a model's tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...


class Runtime(Protocol):
    """What runs one plugin's model."""

    @property
    def max_model_len(self) -> int:
        """Tokens that a prompt and its answer may have together."""

    @property
    def tokenizer(self) -> TextTokenizer: ...

    @property
    def has_chat_template(self) -> bool:
        """Whether the checkpoint says how conversations are written."""

    def prepare(
        self,
        plugin: ModelPlugin,
        config: BaseModelConfig,
        options: RuntimeOptions,
        limits: ResourceLimits | None,
        progress: Progress | None,
    ) -> BaseModelConfig:
        """Find the files, read their headers, plan the memory; nothing large is allocated.

        Returns:
            `config` with the architecture the checkpoint states.

        Raises:
            ResourceError: this machine, or a limit, does not allow the model.
            InferencePIOError: the model cannot be found or read.
        """

    def load(self) -> nn.Module:
        """Load what `prepare` found."""

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> FormattedPrompt: ...

    def encode(self, prompt: RuntimePrompt) -> EncodedPrompt:
        """Token ids of a prompt; its images are read, and ready for the model."""

    def generate(
        self,
        prompts: Sequence[RuntimePrompt],
        params: Sequence[SamplingParams],
        on_finished: Callable[[], None] | None = None,
        reading: Reading | None = None,
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts. One failed request does not keep the others from theirs; a single one
        raises.
        """

    def stream(
        self, prompt: RuntimePrompt, params: SamplingParams, reading: Reading | None = None
    ) -> Iterator[StreamChunk]:
        """Chunks as they come, with a `reading` those of a chat; closing the iterator cancels the request. A failed
        request raises.
        """

    def security_report(self, level: SecurityLevel, limits: ResourceLimits) -> EnforcementReport:
        """What of a level and limits holds for what runs here."""

    def memory_stats(self) -> dict[str, float]: ...

    def compute_stats(self) -> dict[str, float]: ...

    def disk_stats(self) -> dict[str, float]: ...

    def performance_metrics(self) -> PerformanceMetrics:
        """The standard's record of everything since the model was loaded."""

    def optimization_report(self, facts: Iterable[TechniqueFact]) -> list[dict[str, Any]]:
        """What is at work in the loaded model; `facts` are what its plugin states of the standard's techniques."""

    @property
    def fitting(self) -> dict[str, Any]:
        """What was done to the plan to make it fit, and its figures before and after."""

    def optimize(self, **targets: Any) -> dict[str, Any]: ...

    def close(self) -> None:
        """Stop the engine and release the model; twice is fine."""
