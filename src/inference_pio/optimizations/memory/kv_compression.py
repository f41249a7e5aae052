"""Keys and values in fewer bits, one scale per token and head."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn

from inference_pio.cache.specs import PagedKV, kv_dtype_name, with_kv_dtype
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

_USUAL_BITS = 8  # the configuration's, where nobody says how many
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


class KVWholeNumbers(Technique):
    """Keys and values are turned and rounded to whole numbers (`ops.kept_heads`); what follows says how many bits.

    bits  of a number
    kept  the caches' dtype
    """

    bits: ClassVar[int]
    kept: ClassVar[torch.dtype]

    family = "KV-cache compression"
    category = "memory"
    exact = False
    flags = ("use_kv_cache_compression",)
    shows_on = "long"
    by_layer = True

    def standing(self, at: Situation) -> Standing:
        wanted, name = at.config.kv_cache_quantization_bits, kv_dtype_name(self.kept)
        if not any(isinstance(spec, PagedKV) for spec in serving_of(at.model).cache_specs):
            return not_applicable(
                f"a latent cache is not kept in {name}: use kv_cache_dtype auto, bfloat16 or float32"
            )
        if at.device.type != "cpu" or at.dtype not in (torch.float32, torch.bfloat16):
            activations = str(at.dtype).removeprefix("torch.")
            return not_applicable(
                f"kv_cache_dtype {name} goes with float32 or bfloat16 activations on a CPU, not with {activations} on "
                f"{at.device}: use kv_cache_dtype auto, or dtype float32 on device cpu"
            )
        if method_of(at.config) == "eviction":
            return dormant("kv_cache_compression_method is eviction")
        if wanted != self.bits and not (wanted == _USUAL_BITS and self._is_named(at.options)):
            return dormant(f"kv_cache_quantization_bits is {wanted}")
        if at.options.kv_cache_dtype not in ("auto", name):
            return dormant(f"kv_cache_dtype {at.options.kv_cache_dtype} was asked for")
        return active("one scale per token and head")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        name = kv_dtype_name(self.kept)
        return f"kv_cache_dtype {name}" if options.kv_cache_dtype == name else None

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving = serving_of(model)
        allowed = set(serving.layers_for(self.name))
        serving.cache_specs = with_kv_dtype(
            serving.cache_specs, lambda layer: self.kept if layer in allowed else None
        )
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        specs = serving_of(model).cache_specs
        return {
            **self.facts(),
            "layers": sum(isinstance(spec, PagedKV) and spec.dtype == self.kept for spec in specs),
            "bytes_per_token": sum(spec.bytes_per_token() for spec in specs),
        }

    def _is_named(self, options: RuntimeOptions) -> bool:
        return self.asked_by(options) is not None or self.name in options.enable


class KVInt8(KVWholeNumbers):
    """Whole numbers from -127 to 127 in place of bfloat16."""

    name = "kv_int8"
    title = "KV cache in 8 bits"
    bits, kept = 8, torch.int8
    conflicts = ("kv_int4",)


class KVInt4(KVWholeNumbers):
    """Two numbers of 4 bits in a byte, n for n - 7.5; where `kv_cache_quantization_bits` is 4, or it is named."""

    name = "kv_int4"
    title = "KV cache in 4 bits"
    bits, kept = 4, torch.uint8
    conflicts = ("kv_int8",)
    on: ClassVar[Mapping[str, Any]] = MappingProxyType({"kv_cache_quantization_bits": 4})
