"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Checkpoints converted between frameworks often carry such biases.
"""

from __future__ import annotations

from inference_pio.plugin.bias_removal import ZeroBiasRemoval


class BiasRemoval(ZeroBiasRemoval):
    """Of attention and feed-forward blocks, where `attention_bias` or `mlp_bias` gives them one."""
