"""Keys and values in fewer bits, one scale per token and head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from inference_pio.cache.specs import PagedKV
from inference_pio.config import BaseModelConfig
from inference_pio.errors import ConfigError
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

METHODS = ("quantization", "eviction", "combined")


def method_of(config: BaseModelConfig) -> str:
    """Which compression is allowed.

    Raises:
        ConfigError: another word than those of `METHODS`.
    """
    method = config.kv_cache_compression_method
    if method not in METHODS:
        raise ConfigError(f"kv_cache_compression_method must be one of {', '.join(METHODS)}, got {method!r}")
    return method


class KVInt8(Technique):
    """Whole numbers from -127 to 127 in place of bfloat16."""

    name = "kv_int8"
    title = "KV cache in 8 bits"
    family = "KV-cache compression"
    category = "memory"
    exact = False
    flags = ("use_kv_cache_compression",)
    shows_on = "long"

    def standing(self, at: Situation) -> Standing:
        config = at.config
        if not any(isinstance(spec, PagedKV) for spec in serving_of(at.model).cache_specs):
            return not_applicable(
                "a latent cache is not kept in int8: use kv_cache_dtype auto, bfloat16 or float32"
            )
        if at.device.type != "cpu" or at.dtype != torch.float32:
            activations = str(at.dtype).removeprefix("torch.")
            return not_applicable(
                f"kv_cache_dtype int8 goes with float32 activations on a CPU, not with {activations} on {at.device}: "
                f"use kv_cache_dtype auto, or dtype float32 on device cpu"
            )
        if method_of(config) == "eviction":
            return dormant("kv_cache_compression_method is eviction")
        if config.kv_cache_quantization_bits != 8:
            return dormant(f"kv_cache_quantization_bits is {config.kv_cache_quantization_bits}")
        if at.options.kv_cache_dtype in ("float32", "bfloat16"):
            return dormant(f"kv_cache_dtype {at.options.kv_cache_dtype} was asked for")
        return active("one scale per token and head")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        return "kv_cache_dtype int8" if options.kv_cache_dtype == "int8" else None

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving = serving_of(model)
        allowed = set(serving.layers_for(self.name))
        serving.cache_specs = tuple(
            replace(spec, dtype=torch.int8) if layer in allowed and isinstance(spec, PagedKV) else spec
            for layer, spec in enumerate(serving.cache_specs)
        )
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        specs = serving_of(model).cache_specs
        return {
            **self.facts(),
            "layers": sum(isinstance(spec, PagedKV) and spec.dtype == torch.int8 for spec in specs),
            "bytes_per_token": sum(spec.bytes_per_token() for spec in specs),
        }
