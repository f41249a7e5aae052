"""Blocks of equal tokens at equal positions are equal, as long as positions are turned alike.

Whether a conversation's next turn begins with all of the last one is up to the chat template. That of Qwen3-Coder
keeps every turn, tool calls and results included. That of Qwen3-30B-A3B leaves the thoughts of earlier answers out:
there the shared prefix ends where the last answer begins, which the hash of the blocks finds by itself.
"""

from __future__ import annotations

from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.facts import PrefixPolicy


def prefix_policy(config: Qwen3MoeConfig) -> PrefixPolicy:
    """Routing needs no place in the seed: which experts a token takes follows from the tokens up to it."""
    return PrefixPolicy(seed=("qwen3_moe", str(config.torch_dtype), repr(config.rope)))
