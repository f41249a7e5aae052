"""Qwen3-Next (Qwen team 2025): gated DeltaNet (Yang et al. 2025) and gated attention in turns, over mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import KVCache, StateCache
from inference_pio.layers import GatedMLP, VocabParallelEmbedding, VocabParallelHead
from inference_pio.models.qwen3_next.attention.gated_delta_net import GatedDeltaNet
from inference_pio.models.qwen3_next.attention.multi_query_attention import GatedAttention
from inference_pio.models.qwen3_next.config import ATTENTION, Qwen3NextConfig
from inference_pio.models.qwen3_next.fused_layers.fused_layer_norm import zero_centred_norm
from inference_pio.models.qwen3_next.fused_layers.moe import Mixture
from inference_pio.models.qwen3_next.rotary_embeddings.rotary_embedding import RotaryEmbedding
from inference_pio.models.qwen3_next.specific_optimizations.mtp import MultiTokenPredictor
from inference_pio.models.qwen3_next.specific_optimizations.needed_rows import only_needed
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import HeadedModel

# T tokens of the step, R rows that need logits, D hidden size, V vocabulary


class Step(NamedTuple):
    """What all layers of a step share: the rotary table, and which rows belong to which state (None without state)."""

    cos_sin: Tensor
    where: ops.Spans | None

    @classmethod
    def of(cls, batch: ForwardBatch, cos_sin: Tensor) -> Step:
        if batch.state_slots is None:
            return cls(cos_sin, None)
        where = (batch.query_start, batch.positions, batch.state_slots)
        return cls(cos_sin, ops.Spans(*where, batch.max_query_len, batch.drafts))


class DecoderLayer(nn.Module):
    """Gated attention or gated DeltaNet, then a mixture or, in a layer listed as dense, one SwiGLU.

    x is what the block before made; it enters the residual stream in front of each norm.
    """

    def __init__(self, config: Qwen3NextConfig, index: int, shard: Shard) -> None:
        super().__init__()
        self.input_layernorm = zero_centred_norm(config)
        if config.layer_types[index] == ATTENTION:
            self.self_attn = GatedAttention(config, shard)
            self.mix = self._attend
        else:
            self.linear_attn = GatedDeltaNet(config, shard)
            self.mix = self._recall
        self.post_attention_layernorm = zero_centred_norm(config)
        dense = index in config.dense_layers
        self.mlp = (
            GatedMLP(config.hidden_size, config.intermediate_size, shard) if dense else Mixture(config, shard)
        )

    def _attend(self, x_TD: Tensor, batch: ForwardBatch, step: Step, cache: Any) -> Tensor:
        y_TD: Tensor = self.self_attn(x_TD, batch, step.cos_sin, cache)
        return y_TD

    def _recall(self, x_TD: Tensor, batch: ForwardBatch, step: Step, cache: Any) -> Tensor:  # noqa: ARG002
        y_TD: Tensor = self.linear_attn(x_TD, step.where, cache)
        return y_TD


class Qwen3NextModel(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, shard)
        self.rotary_emb = RotaryEmbedding(config)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList([DecoderLayer(config, index, shard) for index in layers])
        self.norm = zero_centred_norm(config)

    def forward(
        self, batch: ForwardBatch, caches: Sequence[KVCache | StateCache], rows_R: Tensor | None
    ) -> Tensor:
        """[R, D]: final hidden states of these rows, or of all."""
        step = Step.of(batch, self.rotary_emb.cos_sin)
        residual_TD = self.embed_tokens(batch.token_ids)
        x_TD: Tensor | None = None
        last = len(self.layers) - 1
        for index, cache in enumerate(caches[: last + 1]):
            layer = cast("DecoderLayer", self.layers[index])
            x_TD, residual_TD = layer.input_layernorm.add(x_TD, residual_TD)
            x_TD = layer.mix(x_TD, batch, step, cache)
            if index == last:
                x_TD, residual_TD = only_needed(rows_R, x_TD, residual_TD)
            x_TD, residual_TD = layer.post_attention_layernorm.add(x_TD, residual_TD)
            x_TD = layer.mlp(x_TD)
        return self.norm.add(x_TD, residual_TD)[0]


class Qwen3NextForCausalLM(HeadedModel):
    """Logits [R, V] in float32. Implements `DraftingModel`."""

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        self.model = Qwen3NextModel(config, shard)
        self.lm_head = VocabParallelHead(config.hidden_size, config.vocab_size, shard)
        self.can_draft = config.use_mtp
        if config.use_mtp:
            self.mtp = MultiTokenPredictor(config, shard)

    def hidden(self, batch: ForwardBatch, caches: Sequence[KVCache | StateCache]) -> Tensor:
        hidden_RD: Tensor = self.model(batch, caches, batch.last_token)
        return hidden_RD

    def forward_all(
        self, batch: ForwardBatch, caches: Sequence[KVCache | StateCache]
    ) -> tuple[Tensor, Tensor]:
        hidden_TD: Tensor = self.model(batch, caches, None)
        return self.logits(hidden_TD[batch.last_token]), hidden_TD

    def remember(self, hidden_TD: Tensor, batch: ForwardBatch, caches: Sequence[Any]) -> None:
        x_TD = self.model.embed_tokens(batch.token_ids)
        self.mtp.remember(x_TD, hidden_TD, batch, self.model.rotary_emb.cos_sin, caches[-1])

    def draft(self, hidden_SD: Tensor, batch: ForwardBatch, caches: Sequence[Any]) -> tuple[Tensor, Tensor]:
        x_SD = self.model.embed_tokens(batch.token_ids)
        hidden_SD = self.mtp(x_SD, hidden_SD, batch, self.model.rotary_emb.cos_sin, caches[-1])
        return self.logits(hidden_SD), hidden_SD
