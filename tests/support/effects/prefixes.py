"""The effect of keeping prefixes on the disk."""

from __future__ import annotations

import os
import tempfile
from unittest import mock

from support.effects import Tiny, effect_of
from support.effects.models import loaded


@effect_of("prefix_disk_tier")
def prefix_disk_tier(tiny: Tiny) -> None:
    text = "the cat sat on the mat and looked at the other cat " * 3
    hits = []
    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, INFERENCE_PIO_HOME=home):
        for options in ({"prefix_cache_disk_gb": 0.01}, {"prefix_cache_disk_gb": 0.01}, {}):
            with loaded(tiny("grouped"), **options) as plugin:
                plugin.generate_text(text, max_new_tokens=1)
                hits.append(plugin.get_compute_stats()["prefix_cache_tier_hit_tokens"])
    assert hits[0] == hits[2] == 0
    assert hits[1] > 0
