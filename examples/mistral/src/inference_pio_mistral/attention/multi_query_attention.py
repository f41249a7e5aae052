"""The attention module. MHA is the case of as many KV heads as heads, MQA that of one: no branch."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio.cache.specs import KVCache
from inference_pio.layers import Linear, RowParallelLinear
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact
from inference_pio_mistral.attention.flash_attention import prefill_attention
from inference_pio_mistral.attention.paged_attention import decode_attention
from inference_pio_mistral.config import MistralConfig
from inference_pio_mistral.cuda_kernels.optimizations import rotate_and_store

# T tokens of the step, D hidden size, N heads, M KV heads, H head_dim, E = (N + 2M)·H


class Attention(nn.Module):
    """Causal self-attention with rotary positions over a paged cache, within a window where the model has one."""

    def __init__(self, config: MistralConfig, shard: Shard) -> None:
        super().__init__()
        self.num_heads = shard.part(config.num_attention_heads)
        self.num_kv_heads = shard.part(config.num_key_value_heads)
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        self.window = config.sliding_window
        width = self.num_heads * self.head_dim
        self.qkv_proj = Linear(config.hidden_size, width + 2 * self.num_kv_heads * self.head_dim)
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
            window=self.window,
        )
        y_TD: Tensor = self.o_proj(o_TNH.flatten(1))
        return y_TD


def technique(config: MistralConfig) -> TechniqueFact:
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
