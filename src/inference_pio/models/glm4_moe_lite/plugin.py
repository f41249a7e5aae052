"""The glm4_moe_lite plugin: facts only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.models.glm4_moe_lite import MANIFEST
from inference_pio.models.glm4_moe_lite.attention import (
    flash_attention,
    multi_query_attention,
    paged_attention,
    sliding_window_attention,
    sparse_attention,
)
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.cuda_kernels import optimizations
from inference_pio.models.glm4_moe_lite.fused_layers import fused_layer_norm
from inference_pio.models.glm4_moe_lite.kv_cache import compression_techniques
from inference_pio.models.glm4_moe_lite.linear_optimizations import weight_layout
from inference_pio.models.glm4_moe_lite.linear_optimizations.bias_removal import BiasRemoval
from inference_pio.models.glm4_moe_lite.model import Glm4MoeLiteForCausalLM
from inference_pio.models.glm4_moe_lite.prefix_caching import prefix_cache_manager
from inference_pio.models.glm4_moe_lite.specific_optimizations import mtp
from inference_pio.models.glm4_moe_lite.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, PrefixPolicy, ShardPlan, TechniqueFact, WeightMap

if TYPE_CHECKING:
    import torch

    from inference_pio.cache.specs import PagedLatent
    from inference_pio.config import BaseModelConfig
    from inference_pio.parallel import Shard
    from inference_pio.plugin.manifest import Manifest


class Glm4MoeLitePlugin(ModelPlugin):
    """GLM-4.7-Flash."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = Glm4MoeLiteConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> Glm4MoeLiteConfig:
        return Glm4MoeLiteConfig.read(raw, path)

    def with_drafting(
        self, config: Glm4MoeLiteConfig, tensor_names: Collection[str]
    ) -> Glm4MoeLiteConfig | None:
        return replace(config, use_mtp=True) if mtp.is_in(config, tensor_names) else None

    def build_model(self, config: Glm4MoeLiteConfig, shard: Shard) -> Glm4MoeLiteForCausalLM:
        return Glm4MoeLiteForCausalLM(config, shard)

    def weight_map(self, config: Glm4MoeLiteConfig) -> WeightMap:
        return weight_layout.weight_map(config)

    def cache_specs(
        self,
        config: Glm4MoeLiteConfig,
        dtype: torch.dtype,
        shard: Shard,  # noqa: ARG002
    ) -> tuple[PagedLatent, ...]:
        return compression_techniques.cache_specs(config, dtype)

    def shard_plan(self, config: Glm4MoeLiteConfig) -> ShardPlan:
        return tensor_parallel_layers.shard_plan(config)

    def prefix_policy(self, config: Glm4MoeLiteConfig) -> PrefixPolicy:
        return prefix_cache_manager.prefix_policy(config)

    def chat_format(self, config: Glm4MoeLiteConfig) -> ChatFormat:  # noqa: ARG002
        """An answer ends where the next turn would begin: the user's, or (after a tool call) what the tool says.

        The template takes `enable_thinking` (false: the answer begins behind a closed `</think>`) and `clear_thinking`
        (false: the thinking of earlier turns stays); by default the model thinks, and earlier thinking is left out.
        """
        return ChatFormat(end_of_turn=("<|user|>", "<|observation|>", "<|endoftext|>"))

    def optimizations(self, config: Glm4MoeLiteConfig) -> tuple[BiasRemoval, ...]:  # noqa: ARG002
        return (BiasRemoval(),)

    def techniques(self, config: Glm4MoeLiteConfig) -> tuple[TechniqueFact, ...]:
        return (
            flash_attention.technique(config),
            sparse_attention.technique(),
            paged_attention.technique(config),
            sliding_window_attention.technique(),
            multi_query_attention.technique(config),
            compression_techniques.technique(config),
            weight_layout.technique(config),
            prefix_cache_manager.technique(config),
            fused_layer_norm.technique(config),
            optimizations.technique(),
            tensor_parallel_layers.technique(config),
            mtp.technique(config),
        )
