"""Multi-token prediction: the `mtp` part of a checkpoint, which drafts (DeepSeek-V3, DeepSeek-AI 2024, section 2.2).

    u = fc([pre_fc_norm_embedding(embedding of token t + 1); pre_fc_norm_hidden(h_t)])    h_t behind the final norm
    h'_t+1 = norm(gated attention and mixture of u),  logits of token t + 2 = lm_head(h'_t+1)

A further draft takes h' in place of h, with the token drafted: vLLM's and SGLang's qwen3_next_mtp. All norms are
zero-centred. The layer attends, so it keeps no state; it has a mixture if the model's first layer has one. Embedding
and head are the model's own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import GatedMLP, Linear
from inference_pio.models.qwen3_next.attention.multi_query_attention import GatedAttention
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.fused_layers.fused_layer_norm import zero_centred_norm
from inference_pio.models.qwen3_next.fused_layers.moe import Mixture
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact


class PredictionLayer(nn.Module):
    """Gated attention and what follows it, between norms."""

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        hidden, dense = config.hidden_size, 0 in config.dense_layers
        self.input_layernorm = zero_centred_norm(config)
        self.self_attn = GatedAttention(config, shard)
        self.post_attention_layernorm = zero_centred_norm(config)
        self.mlp = GatedMLP(hidden, config.intermediate_size, shard) if dense else Mixture(config, shard)


class MultiTokenPredictor(nn.Module):
    """Parameters are called as in the checkpoint."""

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        self.pre_fc_norm_embedding = zero_centred_norm(config)
        self.pre_fc_norm_hidden = zero_centred_norm(config)
        self.fc = Linear(2 * config.hidden_size, config.hidden_size)
        self.layers = nn.ModuleList([PredictionLayer(config, shard)])
        self.norm = zero_centred_norm(config)

    def forward(
        self, x_TD: Tensor, hidden_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache
    ) -> Tensor:
        """[T, D], of which the head makes logits; x is the embedding of each token, hidden h of the one before."""
        layer = cast("PredictionLayer", self.layers[0])
        x_TD, residual_TD = layer.input_layernorm.add(None, self._joined(x_TD, hidden_TD))
        x_TD = layer.self_attn(x_TD, batch, cos_sin, cache)
        x_TD, residual_TD = layer.post_attention_layernorm.add(x_TD, residual_TD)
        return self.norm.add(layer.mlp(x_TD), residual_TD)[0]

    def remember(
        self, x_TD: Tensor, hidden_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache
    ) -> None:
        """Fill the cache and no more: one layer's keys and values depend on no attention and no experts."""
        layer = cast("PredictionLayer", self.layers[0])
        layer.self_attn.project(layer.input_layernorm(self._joined(x_TD, hidden_TD)), batch, cos_sin, cache)

    def _joined(self, x_TD: Tensor, hidden_TD: Tensor) -> Tensor:
        both_TE = torch.cat((self.pre_fc_norm_embedding(x_TD), self.pre_fc_norm_hidden(hidden_TD)), dim=-1)
        u_TD: Tensor = self.fc(both_TE)
        return u_TD


def is_in(tensor_names: Collection[str]) -> bool:
    """Whether a checkpoint has the part; no key of config.json says so."""
    return "mtp.fc.weight" in tensor_names


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    return TechniqueFact(
        "multi-token prediction",
        "hardware",
        "active" if config.use_mtp else "dormant",
        exact=True,
        reason="the checkpoint's own layer drafts, where that pays"
        if config.use_mtp
        else "the checkpoint's layer for drafts (mtp) is not loaded: speculation or mtp is off, or its files lack it",
    )
