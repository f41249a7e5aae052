"""The text's attention module: each head's queries and keys are normalised before they are turned.

Dehghani et al. 2023 ("Scaling Vision Transformers to 22 Billion Parameters") normalise queries and keys so that scores
cannot grow without bound; here it is RMSNorm with one weight of head_dim numbers for all heads of a layer. The heads
together may be wider or narrower than the hidden states. MHA is the case of as many KV heads as heads, MQA that of
one: no branch.
"""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.layers import Linear, RMSNorm, RowParallelLinear
from inference_pio.models.qwen3_vl.attention.flash_attention import prefill_attention
from inference_pio.models.qwen3_vl.attention.paged_attention import decode_attention
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.cuda_kernels.optimizations import normalise_rotate_and_store
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.paged import PagedAttention

# T tokens of the step, D hidden size, N heads, M KV heads, H head_dim, E = (N + 2M)·H


class Attention(nn.Module):
    """Causal self-attention with normalised queries and keys and rotary positions over a paged cache."""

    def __init__(self, config: Qwen3VLConfig, shard: Shard) -> None:
        super().__init__()
        self.num_heads = shard.part(config.num_attention_heads)
        self.num_kv_heads = shard.part(config.num_key_value_heads)
        width = self.num_heads * config.head_dim
        kv_width = self.num_kv_heads * config.head_dim
        self.qkv_proj = Linear(config.hidden_size, width + 2 * kv_width, bias=config.attention_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.o_proj = RowParallelLinear(width, config.hidden_size, shard, bias=config.attention_bias)
        prefill, decode = prefill_attention(config), decode_attention(config)
        self.attend = PagedAttention(prefill, decode, config.head_dim**-0.5)

    def forward(
        self, x_TD: Tensor, batch: ForwardBatch, turns: tuple[Tensor, Tensor], cache: KVCache
    ) -> Tensor:
        qkv_TE = self.qkv_proj(x_TD)
        norms = ops.HeadNorms(self.q_norm.weight, self.k_norm.weight, self.q_norm.eps)
        q_TNH = normalise_rotate_and_store(
            qkv_TE, batch, turns, cache, self.num_heads, self.num_kv_heads, norms
        )
        y_TD: Tensor = self.o_proj(self.attend(q_TNH, batch, cache))
        return y_TD
