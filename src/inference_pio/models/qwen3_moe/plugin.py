"""The qwen3_moe plugin: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.models.qwen3_moe import MANIFEST
from inference_pio.models.qwen3_moe.attention import (
    flash_attention,
    multi_query_attention,
    paged_attention,
    sliding_window_attention,
    sparse_attention,
)
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.models.qwen3_moe.cuda_kernels import optimizations
from inference_pio.models.qwen3_moe.fused_layers import fused_layer_norm, moe
from inference_pio.models.qwen3_moe.kv_cache import compression_techniques
from inference_pio.models.qwen3_moe.linear_optimizations import weight_layout
from inference_pio.models.qwen3_moe.linear_optimizations.bias_removal import BiasRemoval
from inference_pio.models.qwen3_moe.model import Qwen3MoeForCausalLM
from inference_pio.models.qwen3_moe.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3_moe.tensor_parallel import tensor_parallel_layers
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


class Qwen3MoePlugin(ModelPlugin):
    """Qwen3-30B-A3B and Qwen3-Coder-30B-A3B."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = Qwen3MoeConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> Qwen3MoeConfig:
        return Qwen3MoeConfig.read(raw, path)

    def build_model(self, config: Qwen3MoeConfig, shard: Shard) -> Qwen3MoeForCausalLM:
        return Qwen3MoeForCausalLM(config, shard)

    def weight_map(self, config: Qwen3MoeConfig) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(self, config: Qwen3MoeConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
        return compression_techniques.cache_specs(config, dtype, shard)

    def shard_plan(self, config: Qwen3MoeConfig) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: Qwen3MoeConfig) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: Qwen3MoeConfig) -> ChatFormat:  # noqa: ARG002
        """Whether a model thinks is up to its own template: that of Qwen3-30B-A3B asks for `enable_thinking` and
        thinks where nobody says otherwise; Qwen3-Coder's knows no such thing.
        """
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            template_options={"enable_thinking": bool},
            reasoning=ReasoningFormat(),
            tool_calls=("qwen3_coder_xml", "hermes_json"),
        )

    def optimizations(self, config: Qwen3MoeConfig) -> tuple[BiasRemoval, ...]:  # noqa: ARG002
        return (BiasRemoval(),)

    def techniques(self, config: Qwen3MoeConfig) -> tuple[TechniqueFact, ...]:
        return (
            flash_attention.technique(config),
            sparse_attention.technique(),
            paged_attention.technique(config),
            sliding_window_attention.technique(),
            multi_query_attention.technique(config),
            compression_techniques.technique(),
            weight_layout.technique(config),
            prefix_cache_manager.technique(config),
            fused_layer_norm.technique(config),
            moe.technique(config),
            optimizations.technique(),
            tensor_parallel_layers.technique(config),
        )
