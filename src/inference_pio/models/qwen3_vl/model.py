"""Qwen3-VL (Qwen team 2025, "Qwen3-VL Technical Report"): the dense models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import VocabParallelEmbedding, VocabParallelHead
from inference_pio.models.qwen3_vl.attention.multi_query_attention import Attention
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.fused_layers.fused_layer_norm import residual_norm
from inference_pio.models.qwen3_vl.fused_layers.mlp import MLP
from inference_pio.models.qwen3_vl.rotary_embeddings.rotary_embedding import RotaryEmbedding
from inference_pio.models.qwen3_vl.specific_optimizations.needed_rows import keep_needed_rows
from inference_pio.models.qwen3_vl.vision import VisionTower
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import HeadedModel
from inference_pio.plugin.media import MediaRows

# T tokens of the step, R rows that need logits, M rows of images, D hidden size, V vocabulary


class DecoderLayer(nn.Module):
    """x is what the block before made; it enters the residual stream in front of each norm."""

    def __init__(self, config: Qwen3VLConfig, shard: Shard) -> None:
        super().__init__()
        self.input_layernorm = residual_norm(config)
        self.self_attn = Attention(config, shard)
        self.post_attention_layernorm = residual_norm(config)
        self.mlp = MLP(config, shard)

    def attend(
        self,
        x_TD: Tensor | None,
        residual_TD: Tensor,
        batch: ForwardBatch,
        turns: tuple[Tensor, Tensor],
        cache: KVCache,
    ) -> tuple[Tensor, Tensor]:
        x_TD, residual_TD = self.input_layernorm.add(x_TD, residual_TD)
        return self.self_attn(x_TD, batch, turns, cache), residual_TD

    def feed_forward(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        x_TD, residual_TD = self.post_attention_layernorm.add(x_TD, residual_TD)
        return self.mlp(x_TD), residual_TD


class Qwen3VLTextModel(nn.Module):
    """Embedding, layers, final norm. Features of images come in at the embedding, and behind the first layers."""

    def __init__(self, config: Qwen3VLConfig, shard: Shard) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, shard)
        self.rotary_emb = RotaryEmbedding(config)
        self.layers = nn.ModuleList([DecoderLayer(config, shard) for _ in range(config.num_hidden_layers)])
        self.norm = residual_norm(config)
        # Fewer than there are layers, so that all rows are still there.
        self.deep_layers = len(config.vision.deepstack_visual_indexes)

    def forward(self, batch: ForwardBatch, caches: Sequence[KVCache]) -> Tensor:
        """[R, D]: final hidden states of the rows that need logits."""
        residual, turns = self.embed_tokens(batch.token_ids), self.rotary_emb(batch)
        if batch.media is not None:
            residual = residual.index_copy(0, batch.media.rows, _part(batch.media, 0, residual))
        x: Tensor | None = None
        last = len(caches) - 1
        for index, (layer, cache) in enumerate(zip(self.decoder_layers(), caches, strict=True)):
            x, residual = layer.attend(x, residual, batch, turns, cache)
            if index == last:
                x, residual = keep_needed_rows(x, residual, batch.last_token)
            x, residual = layer.feed_forward(x, residual)
            if batch.media is not None and index < self.deep_layers:
                x = x.index_add(0, batch.media.rows, _part(batch.media, 1 + index, x))
        return self.norm.add(x, residual)[0]

    def decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast("Iterator[DecoderLayer]", iter(self.layers))


class Qwen3VLModel(nn.Module):
    """The vision tower beside the text's layers. Every rank holds the whole tower."""

    def __init__(self, config: Qwen3VLConfig, shard: Shard) -> None:
        super().__init__()
        self.visual = VisionTower(config.vision)
        self.language_model = Qwen3VLTextModel(config, shard)


class Qwen3VLForConditionalGeneration(HeadedModel):
    """Logits [R, V] in float32."""

    def __init__(self, config: Qwen3VLConfig, shard: Shard) -> None:
        super().__init__()
        self.model = Qwen3VLModel(config, shard)
        self.lm_head = VocabParallelHead(config.hidden_size, config.vocab_size, shard)

    def hidden(self, batch: ForwardBatch, caches: Sequence[KVCache]) -> Tensor:
        hidden_RD: Tensor = self.model.language_model(batch, caches)
        return hidden_RD

    def encode_media(self, pixels: Tensor, grids: Sequence[tuple[int, int, int]]) -> Tensor:
        """What `MediaRows.features` holds, [M, D · (1 + layers of DeepStack)], of all tokens of all images in order.

        Args:
            pixels: [N, C · T · P · P], patches of all images as `prepare_image` orders them.
            grids: (time, height, width) of each image, in patches.
        """
        features: Tensor = self.model.visual(pixels, grids)
        return features


def _part(media: MediaRows, number: int, like_TD: Tensor) -> Tensor:
    """[M, D]: the features for the embedding (0), or for behind layer number - 1."""
    width = like_TD.shape[1]
    return media.features[:, number * width : (number + 1) * width].to(like_TD.dtype)
