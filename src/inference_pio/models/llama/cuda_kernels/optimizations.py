"""Rotary positions and the cache write are one pass.

Queries and keys are turned and keys and values stored while they are in registers: read qkv once, write q, k, v once.
`ops.rope_and_cache` holds the implementations (torch reference everywhere, native on the CPU).
"""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.fused_operations("rotary positions and cache write are one")
