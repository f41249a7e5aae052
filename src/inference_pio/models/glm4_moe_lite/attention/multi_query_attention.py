"""The attention module: multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, section 2.1).

Its decoding is multi-query attention: the rows of the cache are the keys and values of one head that all queries share.
"""

from __future__ import annotations

from bisect import bisect_left

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import LatentCache
from inference_pio.layers import Linear, RMSNorm, RowParallelLinear
from inference_pio.models.glm4_moe_lite.attention.flash_attention import (
    EXPANSION_BYTES,
    Pays,
    prefill_attention,
)
from inference_pio.models.glm4_moe_lite.attention.paged_attention import decode_attention
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.cuda_kernels.optimizations import store_latents
from inference_pio.models.glm4_moe_lite.linear_optimizations.up_projection import UpProjection
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.facts import TechniqueFact

# The norms of latents do not take rms_norm_eps: Transformers' modeling_glm4_moe_lite builds them with its default.
LATENT_NORM_EPS = 1e-6
# A token and what was guessed behind it: keys and values of their own pay only in prompts as short as this.
FEW_QUERIES = 8
# T tokens of the step, D hidden size, N heads, W width of a cached row, H = P + R of a head's query, V of its value


class Attention(nn.Module):
    """Causal self-attention over a cache of latents.

    Every rank projects and keeps all latents; heads are divided.
    """

    def __init__(self, config: Glm4MoeLiteConfig, shard: Shard, pays: Pays) -> None:
        super().__init__()
        self.num_heads = shard.part(config.num_attention_heads)
        self.latent_width, self.qk_dim = config.latent_width, config.qk_head_dim
        self.scale = config.qk_head_dim**-0.5
        hidden, width, bias = config.hidden_size, self.num_heads * config.qk_head_dim, config.attention_bias
        self.low_rank = config.q_lora_rank is not None
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, width)
            self.kv_a_proj_with_mqa = Linear(hidden, self.latent_width, bias=bias)
            self._project = self._directly
        else:
            # Both are the same on every rank, and take the same input: one product.
            self.qkv_a_proj = Linear(hidden, config.q_lora_rank + self.latent_width, bias=bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = Linear(config.q_lora_rank, width)
            self._project = self._through_a_low_rank
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, LATENT_NORM_EPS)
        self.kv_b_proj = UpProjection(
            self.num_heads, config.qk_nope_head_dim, config.v_head_dim, config.kv_lora_rank
        )
        self.o_proj = RowParallelLinear(self.num_heads * config.v_head_dim, hidden, shard, bias=bias)
        self.pairs, self.pays = config.rope_interleave, pays
        self.prefill, self.decode = prefill_attention(config, pays), decode_attention(config)

    def forward(self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: LatentCache) -> Tensor:
        q_TE, kv_TW = self._project(x_TD)
        store_latents(kv_TW, self.kv_a_layernorm, batch, cos_sin, cache, self.pairs)
        q_TNH = ops.turn_tails(q_TE.unflatten(1, (self.num_heads, -1)), batch.positions, cos_sin, self.pairs)
        sequences = ops.Sequences(
            batch.block_tables, batch.query_start, batch.seq_lens, batch.max_query_len, batch.max_seq_len
        )
        attend = self.decode if batch.max_query_len <= FEW_QUERIES else self.prefill
        o_TNV = attend(q_TNH, self.kv_b_proj.parts(), cache, sequences, self.scale)
        y_TD: Tensor = self.o_proj(o_TNV.flatten(1))
        return y_TD

    def remember(self, x_TD: Tensor, batch: ForwardBatch, cos_sin: Tensor, cache: LatentCache) -> None:
        """Write the cache as `forward` does, and compute nothing else."""
        down = self.qkv_a_proj if self.low_rank else self.kv_a_proj_with_mqa
        kv_TW = down(x_TD)[:, -self.latent_width :]
        store_latents(kv_TW, self.kv_a_layernorm, batch, cos_sin, cache, self.pairs)

    def scratch_bytes(self, tokens: int, sequences: int, context: int, itemsize: int) -> int:
        """Expanded: a sequence's rows, in two types perhaps, and keys and values of as many heads as `EXPANSION_BYTES`
        hold, of one at least and of no more than there are, with what each is copied from. Absorbed: queries and sums
        as wide as a row, of sequences with so few new tokens that nothing is expanded for them. Queries and outputs in
        both. The allocator keeps up to two fifths beside it, more in one run than in the next.
        """
        value_dim = self.kv_b_proj.value_dim
        head = 4 * context * max(self.qk_dim, value_dim) * itemsize
        heads = min(self.num_heads * head, max(head, EXPANSION_BYTES))
        expanded = 3 * context * self.latent_width * itemsize // 2 + heads
        few = bisect_left(
            range(1, min(tokens, context) + 1), True, key=lambda queries: self.pays(queries, context)
        )
        absorbed = (
            3 * min(tokens, sequences * max(few, FEW_QUERIES)) * self.num_heads * self.latent_width * itemsize
        )
        own = 2 * tokens * self.num_heads * (self.qk_dim + value_dim) * itemsize
        return int(1.4 * (own + max(expanded, absorbed)))

    def _directly(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_proj(x_TD), self.kv_a_proj_with_mqa(x_TD)

    def _through_a_low_rank(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        low: Tensor = self.qkv_a_proj(x_TD)
        q_TL, kv_TW = low.split([low.shape[1] - self.latent_width, self.latent_width], dim=1)
        return self.q_b_proj(self.q_a_layernorm(q_TL)), kv_TW


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return TechniqueFact(
        "multi-query / grouped-query attention",
        "attention",
        "active",
        exact=True,
        reason=f"in decoding {config.num_attention_heads} heads share one latent of {config.kv_lora_rank} values and "
        f"one rotary key of {config.qk_rope_head_dim}, read once for all of them",
    )
