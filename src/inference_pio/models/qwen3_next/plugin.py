"""The qwen3_next plugin: facts only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

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
from inference_pio.models.qwen3_next.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.qwen3_next.model import Qwen3NextForCausalLM
from inference_pio.models.qwen3_next.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3_next.specific_optimizations import mtp, speculation
from inference_pio.models.qwen3_next.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class Qwen3NextPlugin(ModelPlugin):
    """Qwen3-Next and Qwen3-Coder-Next."""

    manifest = MANIFEST
    config_class = Qwen3NextConfig
    read_config = staticmethod(Qwen3NextConfig.read)
    build_model = staticmethod(Qwen3NextForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def with_drafting(self, config: Qwen3NextConfig, tensor_names: Collection[str]) -> Qwen3NextConfig | None:
        return replace(config, use_mtp=True) if mtp.is_in(tensor_names) else None

    def chat_format(self, config: Qwen3NextConfig) -> ChatFormat:  # noqa: ARG002
        """Qwen3-Coder-Next writes calls in XML and does not think; Qwen3-Next writes JSON, and one of them thinks."""
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            reasoning=ReasoningFormat(),
            tool_calls=("qwen3_coder_xml", "hermes_json"),
        )

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
            bias_removal.technique(config),
            optimizations.technique(),
            techniques.tensor_parallelism(self.shard_plan(config), "heads and groups of this model"),
            speculation.technique(config),
            mtp.technique(config),
        )
