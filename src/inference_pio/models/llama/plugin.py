"""The llama plugin: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.models.llama import MANIFEST
from inference_pio.models.llama.attention import (
    flash_attention,
    multi_query_attention,
    paged_attention,
    sliding_window_attention,
    sparse_attention,
)
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.models.llama.cuda_kernels import optimizations
from inference_pio.models.llama.fused_layers import fused_layer_norm
from inference_pio.models.llama.kv_cache import compression_techniques
from inference_pio.models.llama.linear_optimizations import weight_layout
from inference_pio.models.llama.linear_optimizations.bias_removal import BiasRemoval
from inference_pio.models.llama.model import LlamaForCausalLM
from inference_pio.models.llama.prefix_caching import prefix_cache_manager
from inference_pio.models.llama.tensor_parallel import tensor_parallel_layers
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


class LlamaPlugin(ModelPlugin):
    """Llama 2, Llama 3.x, SmolLM2."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = LlamaConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> LlamaConfig:
        return LlamaConfig.read(raw, path)

    def build_model(self, config: LlamaConfig, shard: Shard) -> LlamaForCausalLM:
        return LlamaForCausalLM(config, shard)

    def weight_map(self, config: LlamaConfig) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(self, config: LlamaConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
        return compression_techniques.cache_specs(config, dtype, shard)

    def shard_plan(self, config: LlamaConfig) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: LlamaConfig) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: LlamaConfig) -> ChatFormat:  # noqa: ARG002
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|eot_id|>", "<|eom_id|>"),
            template_variables={"date_string": prefix_cache_manager.PINNED_DATE},
            template_options={"date_string": str, "tools_in_user_message": bool},
            reasoning=ReasoningFormat(),  # DeepSeek-R1-Distill-Llama; Llama's own models do not think
            tool_calls=("hermes_json", "llama3_json"),
        )

    def optimizations(self, config: LlamaConfig) -> tuple[BiasRemoval, ...]:  # noqa: ARG002
        return (BiasRemoval(),)

    def techniques(self, config: LlamaConfig) -> tuple[TechniqueFact, ...]:
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
            optimizations.technique(),
            tensor_parallel_layers.technique(config),
        )
