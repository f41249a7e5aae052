"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

A glm4_moe_lite has them where `attention_bias` says so, on the projections down to latents and on the output;
GLM-4.7-Flash has none.
"""

from __future__ import annotations

from inference_pio.plugin.bias_removal import ZeroBiasRemoval


class BiasRemoval(ZeroBiasRemoval):
    """Of attention alone: nothing else has one."""

    kept = "biases of attention are kept: they are not zero, or removal is off"
