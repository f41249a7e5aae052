"""Equal tokens at equal positions have equal keys and values, as long as positions are turned alike and, from the
second layer on, the window is the same."""

from __future__ import annotations

from inference_pio.plugin.facts import PrefixPolicy, TechniqueFact
from inference_pio_mistral.config import MistralConfig


def prefix_policy(config: MistralConfig) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash."""
    return PrefixPolicy(
        seed=("mistral", repr(config.rope), str(config.sliding_window), str(config.torch_dtype))
    )


def technique(config: MistralConfig) -> TechniqueFact:
    return TechniqueFact(
        "prefix caching",
        "memory",
        "active" if config.use_prefix_caching else "dormant",
        exact=True,
        reason=f"full blocks are shared; {config.prefix_cache_max_size / 2**20:.0f} MiB of unused ones are kept"
        if config.use_prefix_caching
        else "use_prefix_caching is off",
    )
