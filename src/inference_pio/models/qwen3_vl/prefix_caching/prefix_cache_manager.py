"""Equal tokens at equal positions have equal keys and values, as long as the images among them are equal too.

Every token of every image has one id. What tells two images apart is `MediaItem.digest`, which the engine puts into the
hash of each block that the image touches; blocks behind it follow from their beginning, as always. This policy adds
what turns equal images into other features: the tower's own numbers. DeepStack changes hidden states from the second
layer on and with them keys and values, by nothing but the image's features: the digest covers it.
"""

from __future__ import annotations

from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.plugin.facts import PrefixPolicy


def prefix_policy(config: Qwen3VLConfig) -> PrefixPolicy:
    """Whatever changes keys and values for equal token ids and equal images goes into the hash."""
    turned = (repr(config.rope), repr(config.mrope_section))
    return PrefixPolicy(seed=("qwen3_vl", *turned, repr(config.vision), str(config.torch_dtype)))
