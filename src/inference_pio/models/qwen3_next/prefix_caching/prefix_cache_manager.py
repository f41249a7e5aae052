"""A state is that of a whole sequence: it cannot be cut at the end of a shared beginning.

Blocks of the attention layers could be shared, but the DeltaNet layers would have nothing to go on from. Snapshots of
the state at chosen places would give that, at the price of 3,216 tokens each (`kv_cache`); until there are any,
nothing is reused, unless every layer attends.
"""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.facts import PrefixPolicy, TechniqueFact


def prefix_policy(config: Qwen3NextConfig) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash."""
    turns = f"{config.rope_theta!r} {config.rotary_dim}"
    return PrefixPolicy(seed=("qwen3_next", turns, str(config.torch_dtype)), reusable=not config.keeps_state)


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    if config.keeps_state:
        return TechniqueFact(
            "prefix caching",
            "memory",
            "not applicable",
            exact=True,
            reason="the state of DeltaNet layers cannot be cut at a block's border",
        )
    return TechniqueFact(
        "prefix caching",
        "memory",
        "active" if config.use_prefix_caching else "dormant",
        exact=True,
        reason="every layer attends: full blocks are shared"
        if config.use_prefix_caching
        else "use_prefix_caching is off",
    )
