"""`ModelPlugin`: what a plugin's author writes, and the standard's methods, written once over a runtime."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.errors import InferencePIOError, PluginError, ResourceError, UsageError, shown
from inference_pio.imports import import_object
from inference_pio.plugin.interface import TextModelPluginInterface
from inference_pio.plugin.prompts import plain_prompt
from inference_pio.plugin.runtime import DEFAULT_RUNTIME, WORKER_RUNTIME, Progress, Runtime, RuntimeOptions
from inference_pio.plugin.sampling import sampling_params_of
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.report import EnforcementReport

if TYPE_CHECKING:
    import torch
    from torch import nn

    from inference_pio.cache.specs import CacheSpec
    from inference_pio.config import BaseModelConfig
    from inference_pio.metrics import PerformanceMetrics
    from inference_pio.parallel import Shard
    from inference_pio.plugin.facts import ChatFormat, PrefixPolicy, ShardPlan, TechniqueFact, WeightMap
    from inference_pio.plugin.manifest import Manifest
    from inference_pio.plugin.media import MediaProcessor
    from inference_pio.plugin.optimization import OptimizationInterface

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ModelPlugin(TextModelPluginInterface):
    """One architecture behind the standard's interface.

    A subclass states facts (the abstract methods below) and builds its model; everything that happens to a model
    (loading, generating, measuring, cleaning up) is inherited. Methods that need a model load it on first use.

    Args:
        config: used where `initialize` or `load_model` are given none; the class's defaults otherwise.
        runtime: what runs the model; an engine in this process by default.
    """

    manifest: ClassVar[Manifest]
    config_class: ClassVar[type[BaseModelConfig]]

    def __init__(self, config: BaseModelConfig | None = None, *, runtime: Runtime | None = None) -> None:
        self.config: BaseModelConfig = config if config is not None else self.config_class()
        self.last_error: InferencePIOError | None = None
        self._runtime = runtime
        self._own_runtime = False  # made here, and not given
        self._security: tuple[SecurityLevel, ResourceLimits] | None = None
        self._asked: BaseModelConfig | None = None
        self._prepared: BaseModelConfig | None = None
        self._refused: tuple[BaseModelConfig, RuntimeOptions, Progress | None] | None = None
        self._model: nn.Module | None = None

    # What a plugin's author writes -------------------------------------------------------------------------------

    @abstractmethod
    def read_config(self, raw: Mapping[str, Any], path: str) -> BaseModelConfig:
        """The configuration that a checkpoint states; strict: every key is read or listed as ignored.

        Args:
            raw: config.json, or a GGUF file's metadata plus "gguf.tensor_names".
            path: named in errors.
        """

    def with_drafting(self, config: Any, tensor_names: Collection[str]) -> BaseModelConfig | None:  # noqa: ARG002
        """`config` changed so that the model has the checkpoint's own layer for drafts (`plugin/drafting.py`), the
        weight map that layer's weights, and the last of the cache specs that layer's cache. None where the checkpoint,
        whose tensors these are, has no such layer, or the plugin does not use it.

        The field that says so is `set_by_runtime`.
        """
        return None

    @abstractmethod
    def build_model(self, config: Any, shard: Shard) -> nn.Module:
        """The model of one rank, without weights: it is built on torch's meta device."""

    @abstractmethod
    def weight_map(self, config: Any) -> WeightMap:
        """Checkpoint names to parameters."""

    @abstractmethod
    def cache_specs(self, config: Any, dtype: torch.dtype, shard: Shard) -> tuple[CacheSpec, ...]:
        """What each layer remembers, one spec per layer."""

    @abstractmethod
    def shard_plan(self, config: Any) -> ShardPlan:
        """How each checkpoint tensor is divided over ranks."""

    @abstractmethod
    def prefix_policy(self, config: Any) -> PrefixPolicy:
        """What may be reused between requests."""

    @abstractmethod
    def chat_format(self, config: Any) -> ChatFormat:
        """How this architecture's chat models mark turns."""

    def optimizations(self, config: Any) -> tuple[OptimizationInterface, ...]:  # noqa: ARG002
        """Techniques of this model alone that act on loaded weights, in the order in which they are applied."""
        return ()

    @abstractmethod
    def techniques(self, config: Any) -> tuple[TechniqueFact, ...]:
        """The standard's techniques: active, dormant or not applicable to this model, and why."""

    def media_processor(
        self,
        config: Any,  # noqa: ARG002 - for those that see
        stated: Mapping[str, Any] = _NOTHING,  # noqa: ARG002
        path: str = "preprocessor_config.json",  # noqa: ARG002
    ) -> MediaProcessor | None:
        """How this model wants its images, where it sees; then the model has `encode_media` as well.

        Args:
            stated: preprocessor_config.json, where one lies beside the checkpoint; strict, as `read_config` is.
            path: named in errors.
        """
        return None

    # Lifecycle ---------------------------------------------------------------------------------------------------

    def initialize_security(
        self, security_level: SecurityLevel, resource_limits: ResourceLimits
    ) -> EnforcementReport:
        """Set trust and limits for what is loaded from now on, which then runs in a process of its own.

        Returns:
            What of them holds here, tried by a child in the same place.
        """
        self._secure(security_level, resource_limits)
        return self.runtime.security_report(security_level, resource_limits)

    def _secure(self, security_level: SecurityLevel, resource_limits: ResourceLimits) -> None:
        """The same, and nothing is tried before the model's files have been looked at."""
        if not isinstance(security_level, SecurityLevel) or not isinstance(resource_limits, ResourceLimits):
            raise UsageError("initialize_security takes a SecurityLevel and ResourceLimits")
        if self._own_runtime:
            self.cleanup()
            self._runtime, self._own_runtime = None, False
        self._security = (security_level, resource_limits)

    def get_security_report(self) -> dict[str, Any]:
        """What of the limits is held, as data; empty where no limits were set."""
        if self._security is None:
            return {}
        report = self.runtime.security_report(*self._security)
        return report.as_dict()

    def initialize(self, **kwargs: Any) -> bool:
        """Find the model, read its headers, plan its memory.

        Keywords: `config`; `security_level` and `resource_limits`; `progress`; the fields of `RuntimeOptions`.

        Returns:
            False where this machine or a limit does not allow the model; `last_error` has the arithmetic.

        Raises:
            UsageError: an unknown keyword or a configuration of another model.
            InferencePIOError: the model cannot be found or read.
        """
        unknown = sorted(set(kwargs) - _INITIALIZE_KEYWORDS - RuntimeOptions.names())
        if unknown:
            allowed = ", ".join(sorted(_INITIALIZE_KEYWORDS | RuntimeOptions.names()))
            raise UsageError(f"initialize does not know {', '.join(unknown)}; it takes {allowed}")
        config = kwargs.get("config") or self.config
        if not self.supports_config(config):
            raise UsageError(
                f"{self.manifest.name!r} takes {self.config_class.__name__}, got {type(config).__name__}"
            )
        self._set_security(kwargs)
        options = RuntimeOptions(**{name: kwargs[name] for name in RuntimeOptions.names() & set(kwargs)})
        if self._prepared is not None:
            self.cleanup()
        try:
            self._prepare(config, options, kwargs.get("progress"))
        except ResourceError:
            return False
        return True

    def load_model(self, config: Any = None) -> nn.Module:
        """The loaded model; `initialize` is called first if it was not, or if `config` is another one."""
        another = config is not None and config is not self._asked and config is not self._prepared
        if (another or self._prepared is None) and not self.initialize(config=config or self.config):
            raise self.last_error or PluginError(f"{self.manifest.name!r} could not be initialised")
        if self._model is None:
            self._model = self.runtime.load()
        return self._model

    def cleanup(self) -> bool:
        """Stop the engine and drop the model."""
        if self._runtime is not None:
            self._runtime.close()
        self._model = None
        self._prepared = self._refused = None
        return True

    def supports_config(self, config: Any) -> bool:
        """Whether `config` is of this plugin's configuration class."""
        return isinstance(config, self.config_class)

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            self._runtime = (
                import_object(DEFAULT_RUNTIME)()
                if self._security is None
                else import_object(WORKER_RUNTIME)(*self._security)
            )
            self._own_runtime = True
        return self._runtime

    # Text --------------------------------------------------------------------------------------------------------

    def infer(self, data: Any) -> Any:
        """A text gives its continuation; a list of texts or of token id lists gives a list of continuations."""
        prompts = [data] if isinstance(data, str) else data
        lists = isinstance(prompts, Sequence) and all(isinstance(one, Sequence) for one in prompts)
        if not lists or not prompts:
            raise UsageError(
                f"infer takes a text, a list of texts or a list of token id lists, got {shown(data)}"
            )
        self.load_model()
        params = sampling_params_of(self.config, self.config.max_new_tokens, {})
        texts = [out.outputs[0].text for out in self.runtime.generate(prompts, [params] * len(prompts))]
        return texts[0] if isinstance(data, str) else texts

    def tokenize(self, text: str | Sequence[str], **kwargs: Any) -> Any:
        """Token ids of a text; of a list of texts a list of them.

        Keywords: `add_special_tokens` (True); `padding` (False): fill shorter lists with `pad_token_id` at their end.

        Raises:
            UsageError: padding is asked for, and neither configuration nor checkpoint names a padding token.
        """
        self.load_model()
        padding = kwargs.pop("padding", False)
        if isinstance(text, str):
            return self.runtime.tokenize(text, **kwargs)
        rows = [self.runtime.tokenize(one, **kwargs) for one in text]
        return self._padded(rows) if padding else rows

    def detokenize(self, token_ids: list[int] | torch.Tensor, **kwargs: Any) -> str:
        """Text. Keyword: `skip_special_tokens` (True)."""
        self.load_model()
        ids = token_ids if isinstance(token_ids, list) else token_ids.tolist()
        return self.runtime.detokenize(ids, **kwargs)

    def generate_text(self, prompt: str, max_new_tokens: int = 512, **kwargs: Any) -> str:
        """The continuation of `prompt`; keywords are fields of `SamplingParams`, over the configuration's."""
        self.load_model()
        params = sampling_params_of(self.config, max_new_tokens, kwargs)
        return self.runtime.generate([plain_prompt(prompt)], [params])[0].outputs[0].text

    def _format_chat_messages(self, messages: list[dict[str, str]]) -> str:
        self.load_model()
        return self.runtime.render_chat(messages)

    # Measured values ---------------------------------------------------------------------------------------------

    def get_memory_stats(self) -> dict[str, float]:
        """Bytes: of the process, of weights, of the KV cache reserved and in use."""
        return self.runtime.memory_stats()

    def get_compute_stats(self) -> dict[str, float]:
        """CPU seconds and threads of the process; tokens, steps and tokens per second of the engine."""
        return self.runtime.compute_stats()

    def get_disk_stats(self) -> dict[str, float]:
        """Bytes: of the model's files, of the model cache, free beside it."""
        return self.runtime.disk_stats()

    def get_performance_metrics(self) -> PerformanceMetrics:
        """The standard's record of everything since the model was loaded; NaN where nothing was measured."""
        return self.runtime.performance_metrics()

    def apply_resource_optimizations(self, **targets: Any) -> dict[str, Any]:
        """Of a model that was refused by `initialize`: what it takes to make it fit, after which it can be loaded.

        Of one that runs: give back memory that can be had without changing results, or with `memory_gb` run within so
        much, in another process. Figures before and after; what was applied and why.

        Raises:
            ResourceError: nothing makes it fit, with the least memory that would.
            PluginError: it has requests, and what is to be changed may change their answers.
        """
        if self._refused is not None:
            if targets:
                raise UsageError(
                    f"optimize takes no {', '.join(sorted(targets))} of a model that was refused"
                )
            config, options, progress = self._refused
            self._prepare(config, replace(options, fit=True), progress)
            return self.runtime.fitting
        told = self.runtime.optimize(**targets)
        if self._security is not None and targets.get("memory_gb") is not None:
            level, limits = self._security
            self._security = level, replace(limits, memory_gb=targets["memory_gb"])
        return told

    def get_optimization_report(self) -> list[dict[str, Any]]:
        """Every technique of the standard: active, dormant or not applicable, why, and what it did to the model."""
        facts = self.techniques(self.config)
        if self._model is None:
            return [vars(fact) for fact in facts]
        own = [step.get_report(self._model) for step in self.optimizations(self.config)]
        return self.runtime.optimization_report(facts) + own

    def _prepare(self, config: BaseModelConfig, options: RuntimeOptions, progress: Progress | None) -> None:
        """Plan the model; where it is refused `last_error` says so, and what was asked for is kept for `optimize`."""
        limits = self._security[1] if self._security else None
        self._refused = None
        try:
            self._prepared = self.runtime.prepare(self, config, options, limits, progress)
        except ResourceError as error:
            self.last_error, self._refused = error, (config, options, progress)
            raise
        self._asked, self.config = config, self._prepared
        self.last_error = None

    def _padded(self, rows: list[list[int]]) -> list[list[int]]:
        pad = self.config.pad_token_id
        if pad is None:
            raise UsageError("this checkpoint names no padding token: set pad_token_id in the configuration")
        longest = max(map(len, rows), default=0)
        return [row + [pad] * (longest - len(row)) for row in rows]

    def _set_security(self, kwargs: Mapping[str, Any]) -> None:
        if "security_level" not in kwargs and "resource_limits" not in kwargs:
            return
        level = kwargs.get("security_level", SecurityLevel.MEDIUM_TRUST)
        limits = kwargs.get("resource_limits", ResourceLimits.default())
        if (level, limits) != self._security:
            self._secure(level, limits)


_INITIALIZE_KEYWORDS = frozenset({"config", "security_level", "resource_limits", "progress"})
