"""Equal tokens at equal positions have equal keys and values, as long as positions are turned alike.

A conversation's next turn need not begin with all of the last one: Qwen3's chat template drops the `<think>` blocks of
earlier answers. The new prompt then equals what was computed up to the beginning of the last answer and no further, and
that much is found again: blocks are compared token by token, so nothing has to be cut here. Behind tool calls, within
one question, the template keeps the thoughts; there the next prompt does begin with everything so far. Qwen3's models
called Instruct-2507 do not think, and their conversations only grow.
"""

from __future__ import annotations

from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin.facts import PrefixPolicy


def prefix_policy(config: Qwen3Config) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids goes into the hash: YaRN turns every position otherwise."""
    return PrefixPolicy(seed=("qwen3", repr(config.rope), str(config.torch_dtype)))
