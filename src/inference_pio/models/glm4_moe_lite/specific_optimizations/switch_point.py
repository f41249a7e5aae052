"""From how many new tokens on keys and values are made from the latents, instead of meeting the latents themselves.

Counted in multiplications of one head, for Q new tokens of a sequence of L, with P pairs of a token and one that it
sees: *expanded* makes keys and values of all tokens, L · C · (key + value), and then takes P · (key + rotary + value);
*absorbed* carries the projections over to the new tokens, Q · C · (key + value), and takes P · 2 (C + rotary).

In GLM-4.7-Flash a first chunk of any size is expanded; behind 2,000 tokens a chunk of 512 is, one of 256 is not.
`benchmarks/benchmark_optimization_impact.py` measures what expanding is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from inference_pio.models.glm4_moe_lite.attention.flash_attention import EXPANSION_BYTES, Pays
from inference_pio.models.glm4_moe_lite.attention.multi_query_attention import Attention
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig

_FLOAT_BYTES = 4


def expansion_pays(config: Glm4MoeLiteConfig) -> Pays:
    """Of (new tokens, length) of a sequence: whether expanded attention takes fewer multiplications.

    Never where keys and values of one head alone would take more than the memory that is meant for them.
    """
    made = config.kv_lora_rank * (config.qk_nope_head_dim + config.v_head_dim)
    saved = 2 * config.latent_width - (config.qk_head_dim + config.v_head_dim)
    longest = EXPANSION_BYTES // (4 * max(config.qk_head_dim, config.v_head_dim) * _FLOAT_BYTES)

    def pays(queries: int, length: int) -> bool:
        pairs = queries * length - queries * (queries - 1) // 2
        return length <= longest and (length - queries) * made < pairs * saved

    return pays


@contextmanager
def never_expanded(model: nn.Module) -> Iterator[None]:
    """A loaded model without this saving: prefill meets the latents as decoding does."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    before = [layer.prefill for layer in layers]
    for layer in layers:
        layer.prefill = layer.decode
    try:
        yield
    finally:
        for layer, prefill in zip(layers, before, strict=True):
            layer.prefill = prefill
