"""The attention module: each head's queries and keys are normalised before they are turned; nothing has a bias.

MHA is the case of as many KV heads as heads, MQA that of one: no branch.
"""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.layers import Linear, RMSNorm, RowParallelLinear
from inference_pio.models.gemma3_text.attention.flash_attention import prefill_attention
from inference_pio.models.gemma3_text.attention.paged_attention import decode_attention
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.models.gemma3_text.cuda_kernels.optimizations import rotate_and_store
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact

# T tokens of the step, D hidden size, N heads, M KV heads, H head_dim, E = (N + 2M)·H


class Attention(nn.Module):
    """Causal self-attention with rotary positions over a paged cache, to the last `window` positions or to all."""

    def __init__(self, config: Gemma3TextConfig, shard: Shard, window: int | None) -> None:
        super().__init__()
        self.num_heads = shard.part(config.num_attention_heads)
        self.num_kv_heads = shard.part(config.num_key_value_heads)
        self.scale, self.window = config.query_pre_attn_scalar**-0.5, window
        width = self.num_heads * config.head_dim
        self.qkv_proj = Linear(config.hidden_size, width + 2 * self.num_kv_heads * config.head_dim)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, offset=1.0)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, offset=1.0)
        self.o_proj = RowParallelLinear(width, config.hidden_size, shard)
        self.prefill, self.decode = prefill_attention(config), decode_attention(config)

    def forward(self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache) -> Tensor:
        qkv_TE = self.qkv_proj(x_TD)
        heads = (self.num_heads, self.num_kv_heads)
        norms = ops.HeadNorms(self.q_norm.weight, self.k_norm.weight, self.q_norm.eps, self.q_norm.offset)
        q_TNH = rotate_and_store(qkv_TE, batch, cos_sin, cache, *heads, norms)
        attend = self.decode if batch.max_query_len == 1 else self.prefill
        o_TNH = attend(
            q_TNH,
            cache.k,
            cache.v,
            batch.block_tables,
            batch.query_start,
            batch.seq_lens,
            self.scale,
            batch.max_query_len,
            batch.max_seq_len,
            cache.scales,
            self.window,
        )
        y_TD: Tensor = self.o_proj(o_TNH.flatten(1))
        return y_TD


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    group = config.num_attention_heads // config.num_key_value_heads
    return TechniqueFact(
        "multi-query / grouped-query attention",
        "attention",
        "active" if group > 1 else "not applicable",
        exact=True,
        reason=f"{config.num_attention_heads} heads share {config.num_key_value_heads} KV heads, read once per group"
        if group > 1
        else "every head has keys and values of its own",
    )
