"""Biases: attention layers may have them (`attention_bias`), published checkpoints have none."""

from __future__ import annotations

from inference_pio.plugin.bias_removal import ZeroBiasRemoval


class BiasRemoval(ZeroBiasRemoval):
    """Of attention alone: nothing else has one."""

    kept = "biases of attention layers are kept"
