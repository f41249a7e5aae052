"""The qwen3_moe plugin: facts only."""

from __future__ import annotations

from inference_pio.models.qwen3_moe import MANIFEST
from inference_pio.models.qwen3_moe.attention import sliding_window_attention, sparse_attention
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.models.qwen3_moe.cuda_kernels import optimizations
from inference_pio.models.qwen3_moe.fused_layers import moe
from inference_pio.models.qwen3_moe.kv_cache import compression_techniques
from inference_pio.models.qwen3_moe.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.qwen3_moe.model import Qwen3MoeForCausalLM
from inference_pio.models.qwen3_moe.prefix_caching import prefix_cache_manager
from inference_pio.models.qwen3_moe.specific_optimizations import needed_rows
from inference_pio.models.qwen3_moe.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class Qwen3MoePlugin(ModelPlugin):
    """Qwen3-30B-A3B and Qwen3-Coder-30B-A3B."""

    manifest = MANIFEST
    config_class = Qwen3MoeConfig
    read_config = staticmethod(Qwen3MoeConfig.read)
    build_model = staticmethod(Qwen3MoeForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def chat_format(self, config: Qwen3MoeConfig) -> ChatFormat:  # noqa: ARG002
        """Whether a model thinks is up to its own template: that of Qwen3-30B-A3B asks for `enable_thinking` and
        thinks where nobody says otherwise; Qwen3-Coder's knows no such thing.
        """
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|endoftext|>"),
            template_options={"enable_thinking": bool},
            reasoning=ReasoningFormat(),
            tool_calls=("qwen3_coder_xml", "hermes_json"),
        )

    def techniques(self, config: Qwen3MoeConfig) -> tuple[TechniqueFact, ...]:
        return (
            techniques.flash_attention(
                config, "prefill in every layer; queries and keys are normalised before it, at no cost to it"
            ),
            sparse_attention.technique(),
            techniques.paged_attention(config),
            sliding_window_attention.technique(),
            techniques.shared_heads(config.num_attention_heads, config.num_key_value_heads),
            compression_techniques.technique(),
            weight_layout.technique(config),
            techniques.prefix_caching(config),
            techniques.fused_layer_norm(config),
            moe.technique(config),
            bias_removal.technique(config),
            optimizations.technique(),
            needed_rows.technique(),
            techniques.tensor_parallelism(self.shard_plan(config)),
        )
