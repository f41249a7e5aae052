"""The mistral plugin: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, PrefixPolicy, ShardPlan, TechniqueFact, WeightMap
from inference_pio_mistral import MANIFEST
from inference_pio_mistral.attention import (
    flash_attention,
    multi_query_attention,
    paged_attention,
    sliding_window_attention,
    sparse_attention,
)
from inference_pio_mistral.config import MistralConfig
from inference_pio_mistral.cuda_kernels import optimizations
from inference_pio_mistral.fused_layers import fused_layer_norm
from inference_pio_mistral.kv_cache import compression_techniques
from inference_pio_mistral.linear_optimizations import bias_removal, weight_layout
from inference_pio_mistral.model import MistralForCausalLM
from inference_pio_mistral.prefix_caching import prefix_cache_manager
from inference_pio_mistral.tensor_parallel import tensor_parallel_layers

if TYPE_CHECKING:
    import torch

    from inference_pio.cache.specs import PagedKV
    from inference_pio.config import BaseModelConfig
    from inference_pio.parallel import Shard
    from inference_pio.plugin.manifest import Manifest


class MistralPlugin(ModelPlugin):
    """Mistral 7B, Mistral Nemo."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = MistralConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> MistralConfig:
        return MistralConfig.read(raw, path)

    def build_model(self, config: MistralConfig, shard: Shard) -> MistralForCausalLM:
        return MistralForCausalLM(config, shard)

    def weight_map(self, config: MistralConfig) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(self, config: MistralConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
        return compression_techniques.cache_specs(config, dtype, shard)

    def shard_plan(self, config: MistralConfig) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: MistralConfig) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: MistralConfig) -> ChatFormat:
        # An answer ends with the end of text, which every checkpoint names.
        return ChatFormat(tool_calls=("mistral_json",), system_role=False)

    def techniques(self, config: MistralConfig) -> tuple[TechniqueFact, ...]:
        return (
            flash_attention.technique(config),
            sparse_attention.technique(),
            paged_attention.technique(config),
            sliding_window_attention.technique(config),
            multi_query_attention.technique(config),
            compression_techniques.technique(),
            weight_layout.technique(),
            bias_removal.technique(config),
            prefix_cache_manager.technique(config),
            fused_layer_norm.technique(config),
            optimizations.technique(),
            tensor_parallel_layers.technique(config),
        )
