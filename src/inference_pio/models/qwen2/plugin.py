"""The qwen2 plugin: facts only."""

from __future__ import annotations

from inference_pio.models.qwen2 import MANIFEST
from inference_pio.models.qwen2.attention import sliding_window_attention, sparse_attention
from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.models.qwen2.cuda_kernels import optimizations
from inference_pio.models.qwen2.kv_cache import compression_techniques
from inference_pio.models.qwen2.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.qwen2.model import Qwen2ForCausalLM
from inference_pio.models.qwen2.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen2.specific_optimizations import needed_rows
from inference_pio.models.qwen2.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class Qwen2Plugin(ModelPlugin):
    """Qwen2.5 and Qwen2.5-Coder."""

    manifest = MANIFEST
    config_class = Qwen2Config
    read_config = staticmethod(Qwen2Config.read)
    build_model = staticmethod(Qwen2ForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def chat_format(self, config: Qwen2Config) -> ChatFormat:  # noqa: ARG002
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            reasoning=ReasoningFormat(),  # QwQ, DeepSeek-R1-Distill-Qwen; Qwen2.5 does not think
            tool_calls=("hermes_json",),
        )

    def techniques(self, config: Qwen2Config) -> tuple[TechniqueFact, ...]:
        return (
            *techniques.of_a_decoder(config, config.num_key_value_heads, self.shard_plan(config)),
            sparse_attention.technique(),
            sliding_window_attention.technique(),
            bias_removal.technique(config),
            optimizations.technique(),
            needed_rows.technique(),
        )
