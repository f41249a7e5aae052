"""Layers that change a text's hidden states least are left out (ShortGPT, Men et al. 2024; Gromov et al. 2024).

Which they are is measured: the receipt names the layers that must stay, the most sensitive first, until what is left
out moves answers less than the quality level allows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from inference_pio.cache.specs import CacheSpec
from inference_pio.optimizations.hardware.surgery import Surgery
from inference_pio.optimizations.technique import Situation, Standing, active, not_applicable
from inference_pio.plugin.serving import serving_of


class _Removed(NamedTuple):
    layers: list[int]
    modules: list[nn.Module]
    specs: tuple[CacheSpec, ...]


class SkippedLayers(Surgery):
    """Layers without which answers move least are not computed; the receipt says which have to stay."""

    name = "skipped_layers"
    title = "skipped layers"
    exact = False
    conflicts = ("tensor_parallelism",)
    shows_on = "decode"
    by_layer = True
    needs_receipt = True

    def standing(self, at: Situation) -> Standing:
        if _layers(at.model, at.config) is None or hasattr(at.model, "encode_media"):
            return not_applicable("its layers are no plain list that could be shortened")
        return active("the layers that matter least are left out")

    def cut(self, model: nn.Module, config: Any) -> _Removed | None:
        serving, layers = serving_of(model), _layers(model, config)
        assert layers is not None, "its standing says that it has such a list"
        out = [layer for layer in serving.layers_for(self.name) if layer < len(layers)]
        if not out:
            return None
        removed = _Removed(out, [layers[layer] for layer in out], serving.cache_specs)
        for layer in reversed(out):
            del layers[layer]
        serving.cache_specs = tuple(
            spec for layer, spec in enumerate(serving.cache_specs) if layer not in out
        )
        return removed

    def restore(self, model: nn.Module, removed: _Removed) -> None:
        count = len(removed.specs)
        layers = next(
            module
            for module in model.modules()
            if isinstance(module, nn.ModuleList) and len(module) + len(removed.layers) <= count
        )
        for layer, module in zip(removed.layers, removed.modules, strict=True):
            layers.insert(layer, module)
        serving_of(model).cache_specs = removed.specs

    def describe(self, removed: _Removed) -> dict[str, Any]:
        parameters = sum(p.numel() for module in removed.modules for p in module.parameters())
        return {"layers": removed.layers, "dense_parameters": parameters}


def _layers(model: nn.Module, config: Any) -> nn.ModuleList | None:
    """The decoder's layers."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((found for found in lists if len(found) == config.num_hidden_layers), None)
