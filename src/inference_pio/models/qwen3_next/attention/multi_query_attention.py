"""Gated attention: each head's output is multiplied by the sigmoid of a gate that the query projection makes too.

"Gated Attention for Large Language Models" (Qiu et al. 2025). Queries and keys are normalised within each head, by
zero-centred weights, before the first `rotary_dim` dimensions turn.
"""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.layers import Linear, RMSNorm, RowParallelLinear
from inference_pio.models.qwen3_next.attention.flash_attention import prefill_attention
from inference_pio.models.qwen3_next.attention.paged_attention import decode_attention
from inference_pio.models.qwen3_next.config import ATTENTION, Qwen3NextConfig
from inference_pio.models.qwen3_next.cuda_kernels.optimizations import split_gate
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact
from inference_pio.plugin.paged import PagedAttention, rotate_and_store

# T tokens of the step, D hidden size, N heads, M KV heads, H head_dim, F = (2N + 2M)·H, E = (N + 2M)·H


class GatedAttention(nn.Module):
    """o_proj(attention · sigmoid(gate)), causal, over a paged cache.

    The projection is merged: of each head its query and its gate, then keys, then values.
    """

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        heads, kv_heads = (shard.part(n) for n in (config.num_attention_heads, config.num_key_value_heads))
        self.num_heads, self.num_kv_heads, self.head_dim = heads, kv_heads, config.head_dim
        bias = config.attention_bias
        self.qkv_proj = Linear(config.hidden_size, 2 * (heads + kv_heads) * config.head_dim, bias=bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, offset=1.0)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, offset=1.0)
        self.o_proj = RowParallelLinear(heads * config.head_dim, config.hidden_size, shard, bias=bias)
        prefill, decode = prefill_attention(config), decode_attention(config)
        self.attend = PagedAttention(prefill, decode, config.head_dim**-0.5)

    def forward(self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache) -> Tensor:
        q_TNH, gate_TX = self.project(x_TD, batch, cos_sin, cache)
        o_TX = self.attend(q_TNH, batch, cache)
        y_TD: Tensor = self.o_proj(ops.sigmoid_gate(o_TX, gate_TX))
        return y_TD

    def project(
        self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache
    ) -> tuple[Tensor, Tensor]:
        """Turned queries [T, N, H] and gates [T, N·H]; keys and values lie in the cache then."""
        qkv_TE, gate_TX = split_gate(self.qkv_proj(x_TD), self.num_heads, self.head_dim)
        norms = ops.HeadNorms(self.q_norm.weight, self.k_norm.weight, self.q_norm.eps, self.q_norm.offset)
        heads = (self.num_heads, self.num_kv_heads)
        return rotate_and_store(qkv_TE, batch, cos_sin, cache, heads, norms), gate_TX


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    layers = config.layer_types.count(ATTENTION)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    shared = layers > 0 and heads > kv_heads
    return TechniqueFact(
        "multi-query / grouped-query attention",
        "attention",
        "active" if shared else "not applicable",
        exact=True,
        reason=f"in {layers} of {config.num_hidden_layers} layers {heads} heads share {kv_heads} KV heads"
        if shared
        else "no two heads share keys and values",
    )
