"""The qwen3 plugin: facts only."""

from __future__ import annotations

from inference_pio.models.qwen3 import MANIFEST
from inference_pio.models.qwen3.attention import sliding_window_attention, sparse_attention
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.cuda_kernels import optimizations
from inference_pio.models.qwen3.kv_cache import compression_techniques
from inference_pio.models.qwen3.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.qwen3.model import Qwen3ForCausalLM
from inference_pio.models.qwen3.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3.specific_optimizations import needed_rows
from inference_pio.models.qwen3.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class Qwen3Plugin(ModelPlugin):
    """Qwen3, dense."""

    manifest = MANIFEST
    config_class = Qwen3Config
    read_config = staticmethod(Qwen3Config.read)
    build_model = staticmethod(Qwen3ForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def chat_format(self, config: Qwen3Config) -> ChatFormat:  # noqa: ARG002
        """Whether a model thinks is for the caller to say, as the template's variable `enable_thinking`."""
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            template_options={"enable_thinking": bool},
            reasoning=ReasoningFormat(),
            tool_calls=("hermes_json",),
        )

    def techniques(self, config: Qwen3Config) -> tuple[TechniqueFact, ...]:
        return (
            *techniques.of_a_decoder(config, config.num_key_value_heads, self.shard_plan(config)),
            sparse_attention.technique(),
            sliding_window_attention.technique(),
            bias_removal.technique(config),
            optimizations.technique(),
            needed_rows.technique(),
        )
