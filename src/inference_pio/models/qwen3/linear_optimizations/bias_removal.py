"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Published Qwen3 models have no biases at all: where Qwen2.5 adds one to queries and keys, Qwen3 normalises them. The
architecture still knows `attention_bias`, for q, k, v and o together; this acts on checkpoints that have it and whose
biases are zero, as those have that were converted from a model without.

A bias that is not zero cannot be folded into anything behind it: those of q and k stand in front of a norm.
"""

from __future__ import annotations

from inference_pio.plugin.bias_removal import ZeroBiasRemoval


class BiasRemoval(ZeroBiasRemoval):
    """Of attention alone: nothing else has one."""

    kept = "biases of attention_bias are kept: they are not zero, or removal is off"
