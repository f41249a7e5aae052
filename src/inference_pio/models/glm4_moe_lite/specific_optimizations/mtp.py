"""Multi-token prediction: the layer behind the last, which drafts (DeepSeek-V3, DeepSeek-AI 2024, section 2.2).

    u = eh_proj([enorm(embedding of token t + 1); hnorm(h_t)])       h_t behind the model's final norm
    h'_t+1 = shared_head.norm(decoder layer(u)),  logits of token t + 2 = lm_head(h'_t+1)

A further draft takes h' in place of h, with the token drafted. vLLM's glm4_moe_lite_mtp and SGLang's glm4_moe_nextn
agree on the first draft; for further ones vLLM goes on from in front of shared_head.norm, SGLang, as here, from behind
it: the model's own h is behind a norm too.

The layer is a sparse one, whatever the first layers are. Embedding and head are the model's own: a checkpoint's copies
of both beside the layer (`embed_tokens`, `shared_head.head`) are not loaded, and where they should differ drafts are
worse and answers the same. Of several such layers the first drafts all tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from inference_pio.cache.specs import LatentCache
from inference_pio.layers import Linear
from inference_pio.models.glm4_moe_lite.attention.multi_query_attention import Attention
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.fused_layers.fused_layer_norm import residual_norm
from inference_pio.models.glm4_moe_lite.fused_layers.moe import MoE
from inference_pio.models.glm4_moe_lite.specific_optimizations.switch_point import expansion_pays
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact

_Fact = tuple[Literal["active", "dormant", "not applicable"], str]
_DRAFTS: _Fact = ("active", "the layer behind the last drafts, where that pays")
_LEFT_OUT: _Fact = (
    "dormant",
    "the layer behind the last is not loaded: speculation or mtp is off, or the files lack it",
)
_ABSENT: _Fact = ("not applicable", "the checkpoint states no layer that predicts further tokens")


class SharedHead(nn.Module):
    """The drafting layer's final norm; what follows it is the model's head."""

    def __init__(self, config: Glm4MoeLiteConfig) -> None:
        super().__init__()
        self.norm = residual_norm(config)


class PredictionLayer(nn.Module):
    """Parameters are called as in the checkpoint, where the layer stands behind the model's last."""

    def __init__(self, config: Glm4MoeLiteConfig, shard: Shard) -> None:
        super().__init__()
        self.enorm, self.hnorm = residual_norm(config), residual_norm(config)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size)
        self.input_layernorm = residual_norm(config)
        self.self_attn = Attention(config, shard, expansion_pays(config))
        self.post_attention_layernorm = residual_norm(config)
        self.mlp = MoE(config, shard)
        self.shared_head = SharedHead(config)

    def forward(
        self, x_TD: Tensor, hidden_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: LatentCache
    ) -> Tensor:
        """[T, D], of which the head makes logits; x is the embedding of each token, hidden h of the one before."""
        x_TD, residual_TD = self.input_layernorm.add(None, self._joined(x_TD, hidden_TD))
        x_TD = self.self_attn(x_TD, batch, cos_sin, cache)
        x_TD, residual_TD = self.post_attention_layernorm.add(x_TD, residual_TD)
        return self.shared_head.norm.add(self.mlp(x_TD), residual_TD)[0]

    def remember(
        self, x_TD: Tensor, hidden_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: LatentCache
    ) -> None:
        """Fill the cache and no more: one layer's latents depend on no attention and no experts."""
        self.self_attn.remember(self.input_layernorm(self._joined(x_TD, hidden_TD)), batch, cos_sin, cache)

    def _joined(self, x_TD: Tensor, hidden_TD: Tensor) -> Tensor:
        u_TD: Tensor = self.eh_proj(torch.cat((self.enorm(x_TD), self.hnorm(hidden_TD)), dim=-1))
        return u_TD


def is_in(config: Glm4MoeLiteConfig, tensor_names: Collection[str]) -> bool:
    """Whether a checkpoint has the layer: it may state one and leave its tensors out."""
    place = config.num_hidden_layers
    names = (f"model.layers.{place}.eh_proj.weight", f"blk.{place}.nextn.eh_proj.weight")
    return config.num_nextn_predict_layers > 0 and any(name in tensor_names for name in names)


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    if not config.num_nextn_predict_layers:
        status, reason = _ABSENT
    else:
        status, reason = _DRAFTS if config.use_mtp else _LEFT_OUT
    return TechniqueFact("multi-token prediction", "hardware", status, exact=True, reason=reason)
