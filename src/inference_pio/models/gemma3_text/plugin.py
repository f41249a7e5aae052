"""The gemma3_text plugin: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.models.gemma3_text import MANIFEST
from inference_pio.models.gemma3_text.attention import (
    flash_attention,
    multi_query_attention,
    paged_attention,
    sliding_window_attention,
    sparse_attention,
)
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.models.gemma3_text.cuda_kernels import optimizations
from inference_pio.models.gemma3_text.fused_layers import fused_layer_norm
from inference_pio.models.gemma3_text.kv_cache import compression_techniques
from inference_pio.models.gemma3_text.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.gemma3_text.model import Gemma3ForCausalLM
from inference_pio.models.gemma3_text.prefix_caching import prefix_cache_manager
from inference_pio.models.gemma3_text.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, PrefixPolicy, ShardPlan, TechniqueFact, WeightMap

if TYPE_CHECKING:
    import torch

    from inference_pio.cache.specs import PagedKV
    from inference_pio.config import BaseModelConfig
    from inference_pio.parallel import Shard
    from inference_pio.plugin.manifest import Manifest


class Gemma3TextPlugin(ModelPlugin):
    """Gemma 3, the text models."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = Gemma3TextConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> Gemma3TextConfig:
        return Gemma3TextConfig.read(raw, path)

    def build_model(self, config: Gemma3TextConfig, shard: Shard) -> Gemma3ForCausalLM:
        return Gemma3ForCausalLM(config, shard)

    def weight_map(self, config: Gemma3TextConfig) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(self, config: Gemma3TextConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:
        return compression_techniques.cache_specs(config, dtype, shard)

    def shard_plan(self, config: Gemma3TextConfig) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: Gemma3TextConfig) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: Gemma3TextConfig) -> ChatFormat:  # noqa: ARG002
        return ChatFormat(end_of_turn=("<end_of_turn>",), system_role=False)

    def optimizations(self, config: Gemma3TextConfig) -> tuple[()]:  # noqa: ARG002
        return ()

    def techniques(self, config: Gemma3TextConfig) -> tuple[TechniqueFact, ...]:
        return (
            flash_attention.technique(config),
            sparse_attention.technique(),
            paged_attention.technique(config),
            sliding_window_attention.technique(config),
            multi_query_attention.technique(config),
            compression_techniques.technique(),
            weight_layout.technique(config),
            prefix_cache_manager.technique(config),
            fused_layer_norm.technique(config),
            optimizations.technique(),
            bias_removal.technique(),
            tensor_parallel_layers.technique(config),
        )
