"""The attention module: q, k and v carry a bias, the output does not.

MHA is the case of as many KV heads as heads, MQA that of one: no branch.
"""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import Linear, RowParallelLinear
from inference_pio.models.qwen2.attention.flash_attention import prefill_attention
from inference_pio.models.qwen2.attention.paged_attention import decode_attention
from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.models.qwen2.cuda_kernels.optimizations import rotate_and_store
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch

# T tokens of the step, D hidden size, N heads, M KV heads, H head_dim, E = (N + 2M)·H


class Attention(nn.Module):
    """Causal self-attention with rotary positions over a paged cache."""

    def __init__(self, config: Qwen2Config, shard: Shard) -> None:
        super().__init__()
        self.num_heads = shard.part(config.num_attention_heads)
        self.num_kv_heads = shard.part(config.num_key_value_heads)
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        width = self.num_heads * self.head_dim
        self.qkv_proj = Linear(config.hidden_size, width + 2 * self.num_kv_heads * self.head_dim, bias=True)
        self.o_proj = RowParallelLinear(width, config.hidden_size, shard)
        self.prefill, self.decode = prefill_attention(config), decode_attention(config)

    def forward(self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache) -> Tensor:
        qkv_TE = self.qkv_proj(x_TD)
        q_TNH = rotate_and_store(qkv_TE, batch, cos_sin, cache, self.num_heads, self.num_kv_heads)
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
        )
        y_TD: Tensor = self.o_proj(o_TNH.flatten(1))
        return y_TD
