"""The qwen3 plugin: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.models.qwen3 import MANIFEST
from inference_pio.models.qwen3.attention import sliding_window_attention, sparse_attention
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.cuda_kernels import optimizations
from inference_pio.models.qwen3.kv_cache import compression_techniques
from inference_pio.models.qwen3.linear_optimizations import weight_layout
from inference_pio.models.qwen3.linear_optimizations.bias_removal import BiasRemoval
from inference_pio.models.qwen3.model import Qwen3ForCausalLM
from inference_pio.models.qwen3.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import (
    ChatFormat,
    PrefixPolicy,
    ReasoningFormat,
    ShardPlan,
    TechniqueFact,
    WeightMap,
)

if TYPE_CHECKING:
    import torch

    from inference_pio.cache.specs import PagedKV
    from inference_pio.config import BaseModelConfig
    from inference_pio.parallel import Shard
    from inference_pio.plugin.manifest import Manifest


class Qwen3Plugin(ModelPlugin):
    """Qwen3, dense."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = Qwen3Config

    def read_config(self, raw: Mapping[str, Any], path: str) -> Qwen3Config:
        return Qwen3Config.read(raw, path)

    def build_model(self, config: Qwen3Config, shard: Shard) -> Qwen3ForCausalLM:
        return Qwen3ForCausalLM(config, shard)

    def weight_map(self, config: Qwen3Config) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(self, config: Qwen3Config, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
        return compression_techniques.cache_specs(config, dtype, shard)

    def shard_plan(self, config: Qwen3Config) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: Qwen3Config) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: Qwen3Config) -> ChatFormat:  # noqa: ARG002
        """Whether a model thinks is for the caller to say, as the template's variable `enable_thinking`."""
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            template_options={"enable_thinking": bool},
            reasoning=ReasoningFormat(),
            tool_calls=("hermes_json",),
        )

    def optimizations(self, config: Qwen3Config) -> tuple[BiasRemoval, ...]:  # noqa: ARG002
        return (BiasRemoval(),)

    def techniques(self, config: Qwen3Config) -> tuple[TechniqueFact, ...]:
        return (
            techniques.flash_attention(config),
            sparse_attention.technique(),
            techniques.paged_attention(config),
            sliding_window_attention.technique(),
            techniques.shared_heads(config.num_attention_heads, config.num_key_value_heads),
            techniques.int8_cache(),
            techniques.packed_weights(config),
            techniques.prefix_caching(config),
            techniques.fused_layer_norm(config),
            optimizations.technique(),
            techniques.tensor_parallelism(self.shard_plan(config)),
        )
