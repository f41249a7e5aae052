"""The gemma3_text plugin: facts only."""

from __future__ import annotations

from inference_pio.models.gemma3_text import MANIFEST
from inference_pio.models.gemma3_text.attention import sliding_window_attention, sparse_attention
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.models.gemma3_text.cuda_kernels import optimizations
from inference_pio.models.gemma3_text.fused_layers import fused_layer_norm
from inference_pio.models.gemma3_text.kv_cache import compression_techniques
from inference_pio.models.gemma3_text.linear_optimizations import bias_removal, weight_layout
from inference_pio.models.gemma3_text.model import Gemma3ForCausalLM
from inference_pio.models.gemma3_text.prefix_caching import prefix_cache_manager
from inference_pio.models.gemma3_text.specific_optimizations import needed_rows
from inference_pio.models.gemma3_text.tensor_parallel import tensor_parallel_layers
from inference_pio.plugin import techniques
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, TechniqueFact


class Gemma3TextPlugin(ModelPlugin):
    """Gemma 3, the text models."""

    manifest = MANIFEST
    config_class = Gemma3TextConfig
    read_config = staticmethod(Gemma3TextConfig.read)
    build_model = staticmethod(Gemma3ForCausalLM)
    weight_map = staticmethod(weight_layout.weight_map)
    cache_specs = staticmethod(compression_techniques.cache_specs)
    shard_plan = staticmethod(tensor_parallel_layers.shard_plan)
    prefix_policy = staticmethod(prefix_cache_manager.prefix_policy)

    def chat_format(self, config: Gemma3TextConfig) -> ChatFormat:  # noqa: ARG002
        return ChatFormat(end_of_turn=("<end_of_turn>",), system_role=False)

    def techniques(self, config: Gemma3TextConfig) -> tuple[TechniqueFact, ...]:
        return (
            techniques.flash_attention(config),
            sparse_attention.technique(),
            techniques.paged_attention(config),
            sliding_window_attention.technique(config),
            techniques.shared_heads(config.num_attention_heads, config.num_key_value_heads),
            techniques.int8_cache(),
            techniques.packed_weights(config),
            techniques.prefix_caching(config),
            fused_layer_norm.technique(config),
            optimizations.technique(),
            needed_rows.technique(),
            bias_removal.technique(config),
            techniques.tensor_parallelism(self.shard_plan(config)),
        )
