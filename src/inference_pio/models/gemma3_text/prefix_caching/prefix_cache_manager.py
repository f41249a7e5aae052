"""Equal tokens at equal positions have equal keys and values, as long as positions are turned and windows lie alike.

Layers with a window keep their keys and values of all tokens, so a prefix can be reused whatever its length. The chat
template writes a system message into the first turn of the user and keeps every turn as it was: a conversation's next
turn begins with all of the last one.
"""

from __future__ import annotations

from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin.facts import PrefixPolicy


def prefix_policy(config: Gemma3TextConfig) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash."""
    ropes = (repr(config.rope_full), repr(config.rope_sliding))
    windows = (str(config.sliding_window), repr(config.layer_types))
    scale = str(config.query_pre_attn_scalar)
    return PrefixPolicy(seed=("gemma3_text", *ropes, *windows, scale, str(config.torch_dtype)))
