"""Qwen3 (Qwen team 2025, "Qwen3 Technical Report"): the dense models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import VocabParallelEmbedding, keep_rows
from inference_pio.models.qwen3.attention.multi_query_attention import Attention
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.fused_layers.fused_layer_norm import residual_norm
from inference_pio.models.qwen3.fused_layers.mlp import feed_forward
from inference_pio.models.qwen3.rotary_embeddings.rotary_embedding import RotaryEmbedding
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import CausalLM

# T tokens of the step, R rows that need logits, D hidden size


class DecoderLayer(nn.Module):
    """x is what the block before made; it enters the residual stream in front of each norm."""

    def __init__(self, config: Qwen3Config, shard: Shard) -> None:
        super().__init__()
        self.input_layernorm = residual_norm(config)
        self.self_attn = Attention(config, shard)
        self.post_attention_layernorm = residual_norm(config)
        self.mlp = feed_forward(config, shard)

    def attend(
        self, x_TD: Tensor | None, residual_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache
    ) -> tuple[Tensor, Tensor]:
        x_TD, residual_TD = self.input_layernorm.add(x_TD, residual_TD)
        return self.self_attn(x_TD, batch, cos_sin, cache), residual_TD

    def feed_forward(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        x_TD, residual_TD = self.post_attention_layernorm.add(x_TD, residual_TD)
        return self.mlp(x_TD), residual_TD


class Qwen3Model(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, config: Qwen3Config, shard: Shard) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, shard)
        self.rotary_emb = RotaryEmbedding(config)
        self.layers = nn.ModuleList([DecoderLayer(config, shard) for _ in range(config.num_hidden_layers)])
        self.norm = residual_norm(config)

    def forward(self, batch: ForwardBatch, caches: Sequence[KVCache]) -> Tensor:
        """[R, D]: final hidden states of the rows that need logits."""
        residual = self.embed_tokens(batch.token_ids)
        x: Tensor | None = None
        last = len(caches) - 1
        for index, (layer, cache) in enumerate(zip(self.decoder_layers(), caches, strict=True)):
            x, residual = layer.attend(x, residual, batch, self.rotary_emb.cos_sin, cache)
            if index == last:
                x, residual = keep_rows(batch.last_token, x, residual)
            x, residual = layer.feed_forward(x, residual)
        return self.norm.add(x, residual)[0]

    def decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast("Iterator[DecoderLayer]", iter(self.layers))


class Qwen3ForCausalLM(CausalLM):
    def __init__(self, config: Qwen3Config, shard: Shard) -> None:
        super().__init__(Qwen3Model(config, shard), config, shard)
