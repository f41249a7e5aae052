"""Equal tokens at equal positions have equal keys and values, as long as positions are turned alike.

The chat template of Qwen2.5 keeps every turn as it was and prints no date, so a conversation's next turn begins with
all of the last one.
"""

from __future__ import annotations

from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.plugin.facts import PrefixPolicy


def prefix_policy(config: Qwen2Config) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash."""
    return PrefixPolicy(seed=("qwen2", repr(config.rope), str(config.torch_dtype)))
