"""Gemma 3 (Gemma team 2025), the text models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import VocabParallelEmbedding, keep_rows
from inference_pio.models.gemma3_text.attention.multi_query_attention import Attention
from inference_pio.models.gemma3_text.config import FULL, SLIDING, Gemma3TextConfig
from inference_pio.models.gemma3_text.fused_layers.fused_layer_norm import output_norm, residual_norm
from inference_pio.models.gemma3_text.fused_layers.mlp import feed_forward
from inference_pio.models.gemma3_text.rotary_embeddings.rotary_embedding import RotaryEmbedding
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import CausalLM

# T tokens of the step, R rows that need logits, D hidden size


class DecoderLayer(nn.Module):
    """Each block has a norm in front of it and one behind it.

    x is what the block before made, normalised; it enters the residual stream in front of the next norm.
    """

    def __init__(self, config: Gemma3TextConfig, shard: Shard, index: int) -> None:
        super().__init__()
        self.kind = config.layer_types[index]
        self.input_layernorm = residual_norm(config)
        self.self_attn = Attention(config, shard, config.window(index))
        self.post_attention_layernorm = output_norm(config)
        self.pre_feedforward_layernorm = residual_norm(config)
        self.mlp = feed_forward(config, shard)
        self.post_feedforward_layernorm = output_norm(config)

    def attend(
        self, x_TD: Tensor | None, residual_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache
    ) -> tuple[Tensor, Tensor]:
        """What attention made, not yet normalised, and the residual stream in front of it."""
        x_TD, residual_TD = self.input_layernorm.add(x_TD, residual_TD)
        return self.self_attn(x_TD, batch, cos_sin, cache), residual_TD

    def feed_forward(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        x_TD = self.post_attention_layernorm(x_TD)
        x_TD, residual_TD = self.pre_feedforward_layernorm.add(x_TD, residual_TD)
        return self.post_feedforward_layernorm(self.mlp(x_TD)), residual_TD


class Gemma3TextModel(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, config: Gemma3TextConfig, shard: Shard) -> None:
        super().__init__()
        scale = config.hidden_size**0.5
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, shard, scale=scale)
        self.rotary_full = RotaryEmbedding(config, config.rope_full)
        self.rotary_sliding = RotaryEmbedding(config, config.rope_sliding)
        self.layers = nn.ModuleList(
            [DecoderLayer(config, shard, index) for index in range(config.num_hidden_layers)]
        )
        self.norm = residual_norm(config)

    def forward(self, batch: ForwardBatch, caches: Sequence[KVCache]) -> Tensor:
        """[R, D]: final hidden states of the rows that need logits."""
        residual = self.embed_tokens(batch.token_ids)
        tables = {FULL: self.rotary_full.cos_sin, SLIDING: self.rotary_sliding.cos_sin}
        x: Tensor | None = None
        last = len(caches) - 1
        for index, (layer, cache) in enumerate(zip(self.decoder_layers(), caches, strict=True)):
            x, residual = layer.attend(x, residual, batch, tables[layer.kind], cache)
            if index == last:
                x, residual = keep_rows(batch.last_token, x, residual)
            x, residual = layer.feed_forward(x, residual)
        return self.norm.add(x, residual)[0]

    def decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast("Iterator[DecoderLayer]", iter(self.layers))


class Gemma3ForCausalLM(CausalLM):
    def __init__(self, config: Gemma3TextConfig, shard: Shard) -> None:
        super().__init__(Gemma3TextModel(config, shard), config, shard)
