"""The llama plugin: facts only."""

from __future__ import annotations

from inference_pio.models.llama import MANIFEST
from inference_pio.models.llama.attention import sliding_window_attention, sparse_attention
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.models.llama.cuda_kernels import optimizations
from inference_pio.models.llama.kv_cache import compression_techniques
from inference_pio.models.llama.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.llama.model import LlamaForCausalLM
from inference_pio.models.llama.prefix_caching import prefix_cache_manager
from inference_pio.models.llama.specific_optimizations import needed_rows
from inference_pio.models.llama.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, ReasoningFormat, TechniqueFact


class LlamaPlugin(ModelPlugin):
    """Llama 2, Llama 3.x, SmolLM2."""

    manifest = MANIFEST
    config_class = LlamaConfig
    read_config = staticmethod(LlamaConfig.read)
    build_model = staticmethod(LlamaForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def chat_format(self, config: LlamaConfig) -> ChatFormat:  # noqa: ARG002
        return ChatFormat(
            end_of_turn=("<|im_end|>", "<|eot_id|>", "<|eom_id|>"),
            template_variables={"date_string": prefix_cache_manager.PINNED_DATE},
            template_options={"date_string": str, "tools_in_user_message": bool},
            reasoning=ReasoningFormat(),  # DeepSeek-R1-Distill-Llama; Llama's own models do not think
            tool_calls=("hermes_json", "llama3_json"),
        )

    def techniques(self, config: LlamaConfig) -> tuple[TechniqueFact, ...]:
        return (
            *techniques.of_a_decoder(config, config.num_key_value_heads, self.shard_plan(config)),
            sparse_attention.technique(),
            sliding_window_attention.technique(),
            bias_removal.technique(config),
            optimizations.technique(),
            needed_rows.technique(),
        )
