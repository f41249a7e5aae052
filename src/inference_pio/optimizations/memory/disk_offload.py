"""What does not fit into memory lies on the disk: experts in a mapped file, layers in one that is read ahead of use."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from torch import nn

from inference_pio.layers.protocol import TakesStacks
from inference_pio.optimizations.memory.tensor_paging import cannot_page
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


class DiskOffload(Technique):
    """Experts first, of which a step needs few (loader/stack_file.py), then as many layers as it takes.

    For layers it is the mechanism of tensor paging with another budget: the memory that is free.
    """

    name = "disk_offload"
    title = "disk offloading"
    family = "disk offloading"
    category = "memory"
    exact = True
    conflicts = ("folded_norms",)
    on = MappingProxyType({"experts": "disk"})
    off = MappingProxyType({"experts": "memory", "device_map": "cpu"})
    shows_on = "memory"

    def standing(self, at: Situation) -> Standing:
        if (refusal := cannot_page(at)) is not None:
            return refusal
        if at.options.experts == "disk":
            return _experts(at)
        if at.options.experts == "memory" and at.config.device_map == "cpu":
            return dormant("experts is memory and device_map is cpu")
        return active("what does not fit into memory goes to the disk")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        return "experts disk" if options.experts == "disk" else None

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).offloads = True
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "disk_bytes": serving_of(model).disk_bytes}


def _experts(at: Situation) -> Standing:
    """Where the caller wants experts on the disk, whether there is room for them or not."""
    if not any(isinstance(module, TakesStacks) for module in at.model.modules()):
        return not_applicable("the model has no experts; layers paged to the disk are tensor_paging")
    if not at.packed:
        return not_applicable("its experts are dense, and those in blocks alone can lie in a mapped file")
    return active("experts are on the disk")
