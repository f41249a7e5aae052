"""GLM-4.7-Flash (Z.ai 2026)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import cast

from torch import Tensor, nn

from inference_pio.cache.specs import LatentCache
from inference_pio.layers import VocabParallelEmbedding, VocabParallelHead
from inference_pio.models.glm4_moe_lite.attention.multi_query_attention import Attention
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.fused_layers.fused_layer_norm import residual_norm
from inference_pio.models.glm4_moe_lite.fused_layers.moe import feed_forward
from inference_pio.models.glm4_moe_lite.rotary_embeddings.rotary_embedding import RotaryEmbedding
from inference_pio.models.glm4_moe_lite.specific_optimizations.mtp import PredictionLayer
from inference_pio.models.glm4_moe_lite.specific_optimizations.needed_rows import keep_needed_rows
from inference_pio.models.glm4_moe_lite.specific_optimizations.switch_point import expansion_pays
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import HeadedModel

# T tokens of the step, R rows that need logits, D hidden size, V vocabulary


class DecoderLayer(nn.Module):
    """x is what the block before made; it enters the residual stream in front of each norm."""

    def __init__(self, config: Glm4MoeLiteConfig, layer: int, shard: Shard) -> None:
        super().__init__()
        self.input_layernorm = residual_norm(config)
        self.self_attn = Attention(config, shard, expansion_pays(config))
        self.post_attention_layernorm = residual_norm(config)
        self.mlp = feed_forward(config, layer, shard)

    def attend(
        self,
        x_TD: Tensor | None,
        residual_TD: Tensor,
        batch: ForwardBatch,
        cos_sin: Tensor,
        cache: LatentCache,
    ) -> tuple[Tensor, Tensor]:
        x_TD, residual_TD = self.input_layernorm.add(x_TD, residual_TD)
        return self.self_attn(x_TD, batch, cos_sin, cache), residual_TD

    def feed_forward(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        x_TD, residual_TD = self.post_attention_layernorm.add(x_TD, residual_TD)
        return self.mlp(x_TD), residual_TD


class Glm4MoeLiteModel(nn.Module):
    """Embedding, layers, final norm; behind the layers that answer, where the configuration asks for it, one that
    drafts.
    """

    def __init__(self, config: Glm4MoeLiteConfig, shard: Shard) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, shard)
        self.rotary_emb = RotaryEmbedding(config)
        self.num_layers = config.num_hidden_layers
        layers: list[nn.Module] = [DecoderLayer(config, layer, shard) for layer in range(self.num_layers)]
        if config.use_mtp:
            layers.append(PredictionLayer(config, shard))
        self.layers = nn.ModuleList(layers)
        self.norm = residual_norm(config)

    def forward(self, batch: ForwardBatch, caches: Sequence[LatentCache], rows_R: Tensor | None) -> Tensor:
        """[R, D]: final hidden states of these rows, or of all."""
        residual = self.embed_tokens(batch.token_ids)
        x: Tensor | None = None
        for index, (layer, cache) in enumerate(
            zip(self.decoder_layers(), caches[: self.num_layers], strict=True)
        ):
            x, residual = layer.attend(x, residual, batch, self.rotary_emb.cos_sin, cache)
            if index == self.num_layers - 1:
                x, residual = keep_needed_rows(x, residual, rows_R)
            x, residual = layer.feed_forward(x, residual)
        return self.norm.add(x, residual)[0]

    def decoder_layers(self) -> Iterator[DecoderLayer]:
        return cast("Iterator[DecoderLayer]", islice(self.layers, self.num_layers))

    def prediction_layer(self) -> PredictionLayer:
        return cast("PredictionLayer", self.layers[self.num_layers])


class Glm4MoeLiteForCausalLM(HeadedModel):
    """Logits [R, V] in float32. Implements `DraftingModel`."""

    def __init__(self, config: Glm4MoeLiteConfig, shard: Shard) -> None:
        super().__init__()
        self.model = Glm4MoeLiteModel(config, shard)
        self.lm_head = VocabParallelHead(config.hidden_size, config.vocab_size, shard)
        self.can_draft = config.use_mtp

    def hidden(self, batch: ForwardBatch, caches: Sequence[LatentCache]) -> Tensor:
        hidden_RD: Tensor = self.model(batch, caches, batch.last_token)
        return hidden_RD

    def forward_all(self, batch: ForwardBatch, caches: Sequence[LatentCache]) -> tuple[Tensor, Tensor]:
        hidden_TD: Tensor = self.model(batch, caches, None)
        return self.logits(hidden_TD[batch.last_token]), hidden_TD

    def remember(self, hidden_TD: Tensor, batch: ForwardBatch, caches: Sequence[LatentCache]) -> None:
        model = self.model
        x_TD = model.embed_tokens(batch.token_ids)
        model.prediction_layer().remember(x_TD, hidden_TD, batch, model.rotary_emb.cos_sin, caches[-1])

    def draft(
        self, hidden_SD: Tensor, batch: ForwardBatch, caches: Sequence[LatentCache]
    ) -> tuple[Tensor, Tensor]:
        model = self.model
        x_SD, layer = model.embed_tokens(batch.token_ids), model.prediction_layer()
        hidden_SD = layer(x_SD, hidden_SD, batch, model.rotary_emb.cos_sin, caches[-1])
        return self.logits(hidden_SD), hidden_SD
