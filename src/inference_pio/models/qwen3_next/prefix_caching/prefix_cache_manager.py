"""A state is that of a whole sequence: it cannot be cut at the end of a shared beginning.

So blocks of the attention layers are shared up to where a snapshot of the DeltaNet layers' states was kept. One costs
as much as 3,216 tokens of keys and values (`kv_cache`): there are few, at the ends of prompts, where prompts part, and
at the ends of answers, which Coder-Next's template repeats in the next turn as they were. Where every layer attends any
full block is shared.
"""

from __future__ import annotations

from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.facts import PrefixPolicy, TechniqueFact


def prefix_policy(config: Qwen3NextConfig) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash."""
    turns = f"{config.rope_theta!r} {config.rotary_dim}"
    return PrefixPolicy(
        seed=("qwen3_next", turns, str(config.torch_dtype)),
        reuse="snapshots" if config.keeps_state else "blocks",
    )


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    kept = f"{config.prefix_cache_max_size / 2**20:.0f} MiB"
    works = (
        f"blocks up to a snapshot of the state are shared; {kept} of snapshots and unused blocks are kept"
        if config.keeps_state
        else f"every layer attends: full blocks are shared; {kept} of unused ones are kept"
    )
    return TechniqueFact(
        "prefix caching",
        "memory",
        "active" if config.use_prefix_caching else "dormant",
        exact=True,
        reason=works if config.use_prefix_caching else "use_prefix_caching is off",
    )
