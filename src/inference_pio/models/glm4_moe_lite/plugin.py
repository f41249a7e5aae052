"""The glm4_moe_lite plugin: facts only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

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
from inference_pio.models.glm4_moe_lite.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.glm4_moe_lite.model import Glm4MoeLiteForCausalLM
from inference_pio.models.glm4_moe_lite.prefix_caching import prefix_cache_manager
from inference_pio.models.glm4_moe_lite.specific_optimizations import mtp
from inference_pio.models.glm4_moe_lite.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class Glm4MoeLitePlugin(ModelPlugin):
    """GLM-4.7-Flash."""

    manifest = MANIFEST
    config_class = Glm4MoeLiteConfig
    read_config = staticmethod(Glm4MoeLiteConfig.read)
    build_model = staticmethod(Glm4MoeLiteForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def with_drafting(
        self, config: Glm4MoeLiteConfig, tensor_names: Collection[str]
    ) -> Glm4MoeLiteConfig | None:
        return replace(config, use_mtp=True) if mtp.is_in(config, tensor_names) else None

    def chat_format(self, config: Glm4MoeLiteConfig) -> ChatFormat:  # noqa: ARG002
        """An answer ends where the next turn would begin: the user's, or (after a tool call) what the tool says.

        The template takes `enable_thinking` (false: the answer begins behind a closed `</think>`) and `clear_thinking`
        (false: the thinking of earlier turns stays); by default the model thinks, and earlier thinking is left out.
        """
        return ChatFormat(
            end_of_turn=("<|user|>", "<|observation|>", "<|endoftext|>"),
            template_options={"enable_thinking": bool, "clear_thinking": bool},
            reasoning=ReasoningFormat(kept_with={"clear_thinking": False}),
            tool_calls=("glm_xml",),
        )

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
            bias_removal.technique(config),
            optimizations.technique(),
            techniques.tensor_parallelism(self.shard_plan(config)),
            mtp.technique(config),
        )
