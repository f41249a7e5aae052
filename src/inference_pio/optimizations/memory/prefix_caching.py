"""Keys and values of equal beginnings are computed once."""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.optimizations.technique import Situation, Standing, Technique, active
from inference_pio.plugin.serving import serving_of


class PrefixCaching(Technique):
    """Full blocks are found by a digest of all that lies before their end, and shared (cache/prefix_index.py)."""

    name = "prefix_caching"
    title = "prefix caching"
    family = "prefix caching"
    category = "memory"
    exact = True
    flags = ("use_prefix_caching",)
    shows_on = "shared"
    by_flag = True

    def standing(self, at: Situation) -> Standing:
        return active(f"{at.config.prefix_cache_max_size / 2**20:.0f} MiB of unused blocks are kept")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:
        serving = serving_of(model)
        serving.prefix_caching, serving.prefix_cache_bytes = True, config.prefix_cache_max_size
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        serving = serving_of(model)
        return {**self.facts(), "kept_bytes": serving.prefix_cache_bytes if serving.prefix_caching else 0}
