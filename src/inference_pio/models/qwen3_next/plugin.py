"""The qwen3_next plugin: facts only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.models.qwen3_next import MANIFEST
from inference_pio.models.qwen3_next.attention import (
    flash_attention,
    gated_delta_net,
    multi_query_attention,
    paged_attention,
    sliding_window_attention,
    sparse_attention,
)
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.cuda_kernels import optimizations
from inference_pio.models.qwen3_next.fused_layers import fused_layer_norm
from inference_pio.models.qwen3_next.kv_cache import compression_techniques
from inference_pio.models.qwen3_next.linear_optimizations import weight_layout
from inference_pio.models.qwen3_next.linear_optimizations.bias_removal import BiasRemoval
from inference_pio.models.qwen3_next.model import Qwen3NextForCausalLM
from inference_pio.models.qwen3_next.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3_next.specific_optimizations import mtp, speculation
from inference_pio.models.qwen3_next.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, PrefixPolicy, ShardPlan, TechniqueFact, WeightMap

if TYPE_CHECKING:
    import torch

    from inference_pio.cache.specs import PagedKV, RecurrentState
    from inference_pio.config import BaseModelConfig
    from inference_pio.parallel import Shard
    from inference_pio.plugin.manifest import Manifest


class Qwen3NextPlugin(ModelPlugin):
    """Qwen3-Next and Qwen3-Coder-Next."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = Qwen3NextConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> Qwen3NextConfig:
        return Qwen3NextConfig.read(raw, path)

    def with_drafting(self, config: Qwen3NextConfig, tensor_names: Collection[str]) -> Qwen3NextConfig | None:
        return replace(config, use_mtp=True) if mtp.is_in(tensor_names) else None

    def build_model(self, config: Qwen3NextConfig, shard: Shard) -> Qwen3NextForCausalLM:
        return Qwen3NextForCausalLM(config, shard)

    def weight_map(self, config: Qwen3NextConfig) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(
        self, config: Qwen3NextConfig, dtype: torch.dtype, shard: Shard
    ) -> tuple[PagedKV | RecurrentState, ...]:
        return compression_techniques.cache_specs(config, dtype, shard)

    def shard_plan(self, config: Qwen3NextConfig) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: Qwen3NextConfig) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: Qwen3NextConfig) -> ChatFormat:  # noqa: ARG002
        return ChatFormat(end_of_turn=("<|im_end|>", "<|endoftext|>"))

    def optimizations(self, config: Qwen3NextConfig) -> tuple[BiasRemoval, ...]:  # noqa: ARG002
        return (BiasRemoval(),)

    def techniques(self, config: Qwen3NextConfig) -> tuple[TechniqueFact, ...]:
        return (
            flash_attention.technique(config),
            sparse_attention.technique(),
            paged_attention.technique(config),
            sliding_window_attention.technique(),
            multi_query_attention.technique(config),
            gated_delta_net.technique(config),
            compression_techniques.technique(),
            weight_layout.technique(config),
            prefix_cache_manager.technique(config),
            fused_layer_norm.technique(config),
            optimizations.technique(),
            tensor_parallel_layers.technique(config),
            speculation.technique(config),
            mtp.technique(config),
        )
