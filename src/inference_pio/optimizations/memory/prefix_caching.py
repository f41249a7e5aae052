"""Keys and values of equal beginnings are computed once, and kept in memory and on the disk."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from torch import nn

from inference_pio.cache.specs import state_specs
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)
from inference_pio.plugin.runtime import RuntimeOptions
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


class PrefixDiskTier(Technique):
    """Blocks that memory has no room for go into files, and those it holds when the model is closed.

    They are found by later runs of the same checkpoint under the same settings (runtime/prefix_tier.py), each behind a
    checksum (loader/prefix_store.py). Off unless asked for: the files tell what the prompts were.
    """

    name = "prefix_disk_tier"
    title = "prefixes on the disk"
    family = "prefix caching"
    category = "memory"
    exact = True
    flags = ("use_prefix_caching",)
    needs = ("prefix_caching",)
    on = MappingProxyType({"prefix_cache_disk_gb": 1.0})
    off = MappingProxyType({"prefix_cache_disk_gb": 0.0})
    both = MappingProxyType({"prefix_cache_max_size": 0})  # what memory keeps is not looked for on the disk
    shows_on = "shared"

    def standing(self, at: Situation) -> Standing:
        if state_specs(serving_of(at.model).cache_specs):
            return not_applicable(
                "layers keep state, of which no copies are kept on the disk, and without one no prefix is reused"
            )
        if not at.options.prefix_cache_disk_gb:
            return dormant("prefix_cache_disk_gb is 0")
        return active(f"{at.options.prefix_cache_disk_gb:g} GB of the model cache at most")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        asked = options.prefix_cache_disk_gb
        return f"prefix_cache_disk_gb {asked:g}" if asked else None

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).prefix_disk = True
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "kept_after_closing": serving_of(model).prefix_disk}
