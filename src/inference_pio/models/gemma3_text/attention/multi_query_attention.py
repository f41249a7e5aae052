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
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.paged import PagedAttention, rotate_and_store

# T tokens of the step, D hidden size, N heads, M KV heads, H head_dim, E = (N + 2M)·H


class Attention(nn.Module):
    """Causal self-attention with rotary positions over a paged cache, to the last `window` positions or to all."""

    def __init__(self, config: Gemma3TextConfig, shard: Shard, window: int | None) -> None:
        super().__init__()
        self.heads = shard.part(config.num_attention_heads), shard.part(config.num_key_value_heads)
        queries, keys = (count * config.head_dim for count in self.heads)
        self.qkv_proj = Linear(config.hidden_size, queries + 2 * keys)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, offset=1.0)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, offset=1.0)
        self.o_proj = RowParallelLinear(queries, config.hidden_size, shard)
        prefill, decode = prefill_attention(config), decode_attention(config)
        scale = config.query_pre_attn_scalar**-0.5
        # What a window saves is a technique's to save (optimizations/attention/sliding_window.py).
        self.attend = PagedAttention(prefill, decode, scale, window, reads_all=window is not None)

    def forward(self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: KVCache) -> Tensor:
        norms = ops.HeadNorms(self.q_norm.weight, self.k_norm.weight, self.q_norm.eps, self.q_norm.offset)
        q_TNH = rotate_and_store(self.qkv_proj(x_TD), batch, cos_sin, cache, self.heads, norms)
        y_TD: Tensor = self.o_proj(self.attend(q_TNH, batch, cache))
        return y_TD
