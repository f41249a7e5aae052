"""Prefill: keys and values of every head are made from the latents, and many tokens attend to them at once.

Tiles with an online softmax: FlashAttention 2, Dao 2023. Sequences whose few new tokens would not pay for the keys and
values of all earlier ones meet the latents as they lie, as in decoding, though they stand in the same step.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import LatentCache
from inference_pio.models.glm4_moe_lite.attention.paged_attention import Attend, decode_attention
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin.facts import TechniqueFact

EXPANSION_BYTES = 64 * 2**20  # of keys and values that stand beside the cache for a moment
Pays = Callable[
    [int, int], bool
]  # whether so many queries of a sequence of that length pay for its keys and values


def prefill_attention(config: Glm4MoeLiteConfig, pays: Pays) -> Attend:
    """[T, N, H] queries to [T, N, V], each sequence in the form that `pays`."""
    attend = ops.paged_attention if config.use_flash_attention_2 else ops.reference.paged_attention
    absorbed = decode_attention(config)

    def expanded(
        q_TNH: Tensor, up: ops.UpProjections, cache: LatentCache, sequences: ops.Sequences, scale: float
    ) -> Tensor:
        return ops.expanded_attention(q_TNH, up, cache.rows, sequences, scale, attend, EXPANSION_BYTES)

    def each_in_its_form(
        q_TNH: Tensor, up: ops.UpProjections, cache: LatentCache, sequences: ops.Sequences, scale: float
    ) -> Tensor:
        queries = sequences.query_start.diff().tolist()
        lengths = sequences.seq_lens.tolist()
        forms: dict[Attend, list[int]] = {expanded: [], absorbed: []}
        for s, (count, length) in enumerate(zip(queries, lengths, strict=True)):
            forms[expanded if pays(count, length) else absorbed].append(s)
        o_TNV = q_TNH.new_empty(*q_TNH.shape[:2], up.values.shape[1])
        for form, chosen in forms.items():
            if len(chosen) == len(queries):
                return form(q_TNH, up, cache, sequences, scale)
            if chosen:
                rows, some = sequences.some(chosen)
                o_TNV[rows] = form(q_TNH[rows], up, cache, some, scale)
        return o_TNV

    return each_in_its_form


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return TechniqueFact(
        "FlashAttention 2 (tiled online softmax)",
        "attention",
        "active" if config.use_flash_attention_2 else "dormant",
        exact=True,
        reason="prefill in every layer, on keys and values made from the latents"
        if config.use_flash_attention_2
        else "use_flash_attention_2 is off",
    )
