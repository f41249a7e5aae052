"""Tokens that nothing attends to leave the cache (`engine/eviction.py` has the mathematics)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from torch import nn

from inference_pio.cache.retention import EvictionPolicy
from inference_pio.errors import ConfigError
from inference_pio.optimizations.memory.kv_compression import method_of
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)
from inference_pio.plugin.paged import widest_window
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import serving_of


class KVEviction(Technique):
    """Of a long sequence whole blocks are given up, those with the least attention (H2O, Zhang et al. 2023; SnapKV, Li
    et al. 2024).

    How many tokens stay is the caller's to say: a receipt of short texts says nothing of long ones.
    """

    name = "kv_eviction"
    title = "KV cache eviction by attention"
    family = "KV-cache compression"
    category = "memory"
    exact = False
    # Nothing is kept; no layer of a compiled step tells what it attends to; a rank would tell of its own heads alone.
    conflicts = ("recomputation", "compiled_step", "tensor_parallelism")
    flags = ("use_kv_cache_compression",)
    on = MappingProxyType({"kv_cache_budget": 1024})
    off = MappingProxyType({"kv_cache_budget": None})
    shows_on = "long"

    def standing(self, at: Situation) -> Standing:
        try:
            window = widest_window(at.model, serving_of(at.model).cache_specs)
        except ConfigError as error:
            return not_applicable(str(error))
        if method_of(at.config) == "quantization":
            return dormant("kv_cache_compression_method is quantization")
        budget = at.options.kv_cache_budget
        if budget is None:
            return dormant("no kv_cache_budget says how many tokens of a sequence stay")
        try:
            EvictionPolicy(budget=budget).check(at.options.block_size, window)
        except ConfigError as error:
            return dormant(str(error))
        return active(f"{budget} tokens of a sequence stay")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        return None if options.kv_cache_budget is None else f"kv_cache_budget {options.kv_cache_budget}"

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).evicts = True
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "evicts": serving_of(model).evicts}
