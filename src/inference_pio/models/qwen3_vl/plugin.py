"""The qwen3_vl plugin: facts only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from inference_pio.models.qwen3_vl import MANIFEST
from inference_pio.models.qwen3_vl.attention import sliding_window_attention, sparse_attention
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.cuda_kernels import optimizations
from inference_pio.models.qwen3_vl.image_processing import ImageProcessor
from inference_pio.models.qwen3_vl.kv_cache import compression_techniques
from inference_pio.models.qwen3_vl.linear_optimizations import bias_removal, dense_map, weight_layout
from inference_pio.models.qwen3_vl.model import Qwen3VLForConditionalGeneration
from inference_pio.models.qwen3_vl.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3_vl.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class Qwen3VLPlugin(ModelPlugin):
    """Qwen3-VL, dense."""

    manifest = MANIFEST
    config_class = Qwen3VLConfig
    read_config = staticmethod(Qwen3VLConfig.read)
    build_model = staticmethod(Qwen3VLForConditionalGeneration)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def chat_format(self, config: Qwen3VLConfig) -> ChatFormat:  # noqa: ARG002
        """Models called Thinking think, those called Instruct do not; their templates take no variable for it."""
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            reasoning=ReasoningFormat(),
            tool_calls=("hermes_json",),
        )

    def media_processor(
        self,
        config: Qwen3VLConfig,
        stated: Mapping[str, Any] = MappingProxyType({}),
        path: str = "preprocessor_config.json",
    ) -> ImageProcessor:
        """What happens to images in front of this model."""
        return ImageProcessor.of(config.image_token_id, config.vision, stated, path)

    def techniques(self, config: Qwen3VLConfig) -> tuple[TechniqueFact, ...]:
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
            dense_map.technique(),
            bias_removal.technique(config),
            optimizations.technique(),
            techniques.tensor_parallelism(self.shard_plan(config)),
        )
