"""Equal tokens at equal positions have equal latents and rotary keys, as long as positions are turned alike.

The chat template of GLM-4.7-Flash leaves the thinking of earlier turns out (unless `clear_thinking` is false), so that
a conversation's next turn begins with the last one up to where its answer begins, and differs from there. Whether it
does is seen from the token ids: such options need no place in the hash.
"""

from __future__ import annotations

from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import PrefixPolicy, TechniqueFact


def prefix_policy(config: Glm4MoeLiteConfig) -> PrefixPolicy:
    """Whatever changes latents and rotary keys for equal token ids goes into the hash."""
    turned = f"{config.rope_theta!r} {'pairs' if config.rope_interleave else 'halves'}"
    return PrefixPolicy(seed=("glm4_moe_lite", turned, str(config.torch_dtype)))


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return techniques.prefix_caching(config, "blocks full of latents are shared")
