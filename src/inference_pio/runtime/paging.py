"""Where the weights of layers lie: in memory, or on the disk as far as the budget or the memory asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from inference_pio.errors import ResourceError, UsageError
from inference_pio.loader.packing import Packing
from inference_pio.loader.page_plan import PagedLayer, PagePlan, pageable_layers, plan_pages
from inference_pio.loader.weight_plan import WeightPlan
from inference_pio.ops import native
from inference_pio.optimizations.technique import Situation
from inference_pio.plugin.serving import serving_of
from inference_pio.runtime.cache_room import SHORTEST
from inference_pio.runtime.plan import MemoryPlan
from inference_pio.runtime.weight_bytes import LoadingBytes

DEVICE_MAPS = ("auto", "cpu", "disk")
# Context that layers go to the disk for, where the caller asks for none.
USEFUL_CONTEXT = 4096


@dataclass(frozen=True)
class PagingRequest:
    """What the caller wants and techniques allow.

    explicit  within a budget of the caller's: `most` bytes of weights in memory, or as few as can be where that is None
    auto      where the weights do not fit into memory beside any context of use
    experts   of `EXPERTS`
    """

    explicit: bool
    auto: bool
    most: int | None
    experts: str

    @classmethod
    def of(cls, at: Situation) -> PagingRequest:
        """Of a model that techniques were applied to. One that is divided over ranks has no layers on the disk.

        Raises:
            UsageError: `device_map` is no word of `DEVICE_MAPS`.
            ResourceError: it asks for what this device cannot do.
        """
        serving, device = serving_of(at.model), at.device
        where, gigabytes = at.config.device_map, at.options.resident_weights_gb
        if where not in DEVICE_MAPS:
            raise UsageError(f"device_map must be one of {', '.join(DEVICE_MAPS)}, got {where!r}")
        if where == "disk" and device.type != "cpu":
            raise ResourceError(
                f"device_map disk: weights are read from the disk on a CPU only, not on {device}"
            )
        if where == "disk" and native.MISSING is not None:
            raise ResourceError(f"device_map disk: weights cannot be read from the disk: {native.MISSING}")
        most = None if gigabytes is None else int(gigabytes * 1e9)
        experts = at.options.experts if serving.offloads else "memory"
        auto = serving.offloads and where == "auto" and serving.ranks == 1
        return cls(serving.pages_layers, auto, most, experts)

    def without_disk(self) -> PagingRequest:
        """The same where this process can keep no file of layers or experts.

        Raises:
            ResourceError: the caller asks for one.
        """
        if self.explicit or self.experts == "disk":
            raise ResourceError(
                "weights cannot be read from the disk here: their file can neither be read nor written by this process "
                "(a worker without a folder to write to); raise the memory limit, or give up device_map disk, "
                "resident_weights_gb and experts disk"
            )
        return replace(self, auto=False, experts="memory")


@dataclass(frozen=True)
class WeightSizes:
    """request   what is to be on the disk
    resident  bytes of all weights, in memory
    loading   what loading takes
    experts   of `resident`, of each parameter that may lie in a mapped file
    layers    those that may be read when they are used
    """

    request: PagingRequest
    resident: int
    loading: LoadingBytes
    experts: tuple[int, ...]
    layers: tuple[PagedLayer, ...]


def place_weights(
    name: str, sizes: WeightSizes, planned: Callable[..., MemoryPlan]
) -> tuple[MemoryPlan, PagePlan | None]:
    """The memory plan, and which layers are on the disk; None where none is. Experts go there before layers do.

    Args:
        planned: `plan_memory` of everything but `weight_bytes` and `mapped_bytes`.

    Raises:
        ResourceError: layers cannot be on the disk though the caller asks for it, or not within the budget.
    """
    request, weights, experts = sizes.request, sizes.resident, sum(sizes.experts)

    def placed(weight_bytes: int, mapped_bytes: int) -> MemoryPlan:
        loading = max(sizes.loading.beside, sizes.loading.first + mapped_bytes - weight_bytes)
        return replace(planned(weight_bytes=weight_bytes, mapped_bytes=mapped_bytes), loading=loading)

    plan = placed(weights, experts if request.experts == "disk" else 0)
    if request.experts == "auto" and experts and not plan.fits:
        plan = placed(weights, experts)
    if request.explicit:
        pages = _within(request, name, sizes.layers, sizes.resident - plan.mapped)
    elif request.auto and sizes.layers and not plan.fits and plan.longest < min(SHORTEST, plan.positions):
        # A shorter context would not help: it is the weights that are too many.
        pages = _as_memory_allows(plan, sizes.layers)
    else:
        return plan, None
    if not pages.streamed:
        return plan, None
    # Where that does not fit either it says what the least is.
    smaller = placed(weights - pages.saved_bytes, plan.mapped)
    return replace(smaller, paged=pages.disk_bytes), pages


def layers_of(
    request: PagingRequest,
    model: nn.Module,
    weights: WeightPlan,
    packing: Packing,
    dtype: torch.dtype,
) -> tuple[PagedLayer, ...]:
    """Those that may be on the disk."""
    return () if not (request.explicit or request.auto) else pageable_layers(model, weights, packing, dtype)


def _within(
    request: PagingRequest, name: str, layers: tuple[PagedLayer, ...], resident_bytes: int
) -> PagePlan:
    if request.most is not None and resident_bytes <= request.most:
        return PagePlan(layers, ())
    if not layers:
        raise ResourceError(
            f"the weights of {name} cannot be paged: it has no three layers of plain linear maps; leave device_map "
            "and resident_weights_gb out"
        )
    others = resident_bytes - sum(layer.weight_bytes for layer in layers)
    pages = plan_pages(layers, 0 if request.most is None else request.most - others)
    if request.most is not None and others + pages.memory_bytes > request.most:
        raise ResourceError(
            f"{name} cannot run within resident_weights_gb {request.most / 1e9:g}: embedding, head and what else "
            f"stays {_gb(others)} + a window of two layers {_gb(pages.memory_bytes)} = "
            f"{_gb(others + pages.memory_bytes)} GB; raise it to that, or take a smaller model"
        )
    return pages


def _as_memory_allows(plan: MemoryPlan, layers: tuple[PagedLayer, ...]) -> PagePlan:
    """What does not fit beside the rest and a context of use goes to the disk."""
    room = sum(layer.weight_bytes for layer in layers) - (plan.total - plan.budget)
    context = max(0, min(USEFUL_CONTEXT, plan.max_model_len) - plan.kv_tokens) * plan.kv_bytes_per_token
    pages = plan_pages(layers, room - context)
    return pages if pages.memory_bytes <= room - context else plan_pages(layers, room)


def _gb(count: int) -> str:
    return f"{-(-count // 10**6) / 1000:.3f}"
