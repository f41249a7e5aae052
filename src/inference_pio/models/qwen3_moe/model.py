"""Qwen3-30B-A3B (Qwen team 2025, the Qwen3 technical report, section 2) and Qwen3-Coder-30B-A3B."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import VocabParallelEmbedding, keep_rows
from inference_pio.models.qwen3_moe.attention.multi_query_attention import Attention
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.models.qwen3_moe.fused_layers.fused_layer_norm import residual_norm
from inference_pio.models.qwen3_moe.fused_layers.mlp import feed_forward
from inference_pio.models.qwen3_moe.fused_layers.moe import SparseMoe
from inference_pio.models.qwen3_moe.rotary_embeddings.rotary_embedding import RotaryEmbedding
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import CausalLM

# T tokens of the step, R rows that need logits, D hidden size


class DecoderLayer(nn.Module):
    """Attention, then experts or, in the layers that the configuration says, one dense block.

    What a block made joins the residual stream in the norm in front of the next one.
    """

    def __init__(self, config: Qwen3MoeConfig, index: int, shard: Shard) -> None:
        super().__init__()
        self.input_layernorm = residual_norm(config)
        self.self_attn = Attention(config, shard)
        self.post_attention_layernorm = residual_norm(config)
        self.mlp = SparseMoe(config, shard) if config.has_experts(index) else feed_forward(config, shard)


class Qwen3MoeModel(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, config: Qwen3MoeConfig, shard: Shard) -> None:
        super().__init__()
        layers = range(config.num_hidden_layers)
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, shard)
        self.rotary_emb = RotaryEmbedding(config)
        self.layers = nn.ModuleList([DecoderLayer(config, index, shard) for index in layers])
        self.norm = residual_norm(config)

    def forward(self, batch: ForwardBatch, caches: Sequence[KVCache]) -> Tensor:
        """[R, D]: final hidden states of the rows that need logits."""
        cos_sin, x, residual = self.rotary_emb.cos_sin, None, self.embed_tokens(batch.token_ids)
        for layer, cache in zip(self.decoder_layers(), caches, strict=True):
            h, residual = layer.input_layernorm.add(x, residual)
            h = layer.self_attn(h, batch, cos_sin, cache)
            if cache is caches[-1]:
                h, residual = keep_rows(batch.last_token, h, residual)
            h, residual = layer.post_attention_layernorm.add(h, residual)
            x = layer.mlp(h)
        return self.norm.add(x, residual)[0]

    def decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast("Iterator[DecoderLayer]", iter(self.layers))


class Qwen3MoeForCausalLM(CausalLM):
    def __init__(self, config: Qwen3MoeConfig, shard: Shard) -> None:
        super().__init__(Qwen3MoeModel(config, shard), config, shard)
