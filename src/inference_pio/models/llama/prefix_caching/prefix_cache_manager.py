"""Equal tokens at equal positions have equal keys and values, as long as positions are turned alike."""

from __future__ import annotations

from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin.facts import PrefixPolicy

# Llama 3.x templates print the date of the day into the system turn, which would make every prefix expire at midnight
# and answers irreproducible. This is the date that the template itself falls back to.
PINNED_DATE = "26 Jul 2024"


def prefix_policy(config: LlamaConfig) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash."""
    return PrefixPolicy(seed=("llama", repr(config.rope), str(config.torch_dtype)))
