"""Layers are read from the disk while those before them compute, so that weights stay within a budget of memory."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from torch import nn

from inference_pio.layers.paged import pagers_of
from inference_pio.ops import native
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


def cannot_page(at: Situation) -> Standing | None:
    """Why no layer of the model can be on the disk; None where one can."""
    if at.device.type != "cpu":
        return not_applicable(f"weights are read from the disk on a CPU only, not on {at.device}")
    if native.MISSING is not None:
        return not_applicable(f"weights cannot be read from the disk: {native.MISSING}")
    return None


class TensorPaging(Technique):
    """A fixed share of the layers stays, the others pass through a window of two (ops/paging.py, csrc/pager.cpp).

    The same mechanism as disk offloading with a budget of the caller's own: `resident_weights_gb`, or as little as the
    model can do with where `device_map` is "disk".
    """

    name = "tensor_paging"
    title = "tensor paging"
    family = "tensor paging"
    category = "memory"
    exact = True
    conflicts = ("tensor_parallelism", "folded_norms")  # whose weights are no longer those of the file
    on = MappingProxyType({"device_map": "disk"})
    off = MappingProxyType({"device_map": "cpu"})
    shows_on = "memory"

    def standing(self, at: Situation) -> Standing:
        if (refusal := cannot_page(at)) is not None:
            return refusal
        most, where = at.options.resident_weights_gb, at.config.device_map
        if where == "cpu":
            return dormant("device_map is cpu, which keeps all weights in memory")
        if most is not None:
            return active(f"at most {most:g} GB of weights are in memory at a time")
        if where == "disk":
            return active("device_map is disk: of all layers two are in memory at a time")
        return dormant(
            "resident_weights_gb sets no budget; disk offloading has what does not fit into memory"
        )

    def asked_by(self, options: RuntimeOptions) -> str | None:
        most = options.resident_weights_gb
        return None if most is None else f"resident_weights_gb {most:g}"

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).pages_layers = True
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        pagers = pagers_of(model)
        counts = [pager.counts() for pager in pagers]
        return {
            **self.facts(),
            "streamed_bytes": sum(pager.streamed_bytes for pager in pagers),
            "resident_bytes": sum(pager.memory.nbytes for pager in pagers),
            "read_bytes": sum(count.read_bytes for count in counts),
            "waited_seconds": sum(count.waited_seconds for count in counts),
        }
