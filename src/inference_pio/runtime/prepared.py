"""A model that is found, understood and planned, but not loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from inference_pio.errors import UnsupportedArchitecture
from inference_pio.layers import Linear
from inference_pio.loader.weights import audit
from inference_pio.metrics.memory import available_bytes
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import WeightMap
from inference_pio.plugin.registry import claims_checkpoint
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.devices import resolve_device, resolve_dtype
from inference_pio.runtime.opened import OpenedModel
from inference_pio.runtime.plan import Budget, MemoryPlan, plan_memory
from inference_pio.security import ResourceLimits


@dataclass(frozen=True)
class Prepared:
    """`model` is on torch's meta device: shapes without memory."""

    plugin: ModelPlugin
    config: Any
    options: RuntimeOptions
    progress: Progress | None
    opened: OpenedModel
    model: nn.Module
    weight_map: WeightMap
    device: torch.device
    dtype: torch.dtype
    plan: MemoryPlan


def prepare_model(
    plugin: ModelPlugin,
    config: Any,
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
    opened: OpenedModel,
) -> Prepared:
    """Read the configuration, hold names and shapes against the model both ways, plan the memory."""
    path = str(opened.source.path)
    if not claims_checkpoint(plugin.manifest, opened.raw):
        raise UnsupportedArchitecture(path, f"not a checkpoint that plugin {plugin.manifest.name!r} runs")
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.torch_dtype, device)
    stated = plugin.read_config(opened.raw, path).with_options_of(config)
    stated.model_name = stated.model_name or opened.source.name
    with torch.device("meta"):
        model = plugin.build_model(stated, Shard())
    weight_map = plugin.weight_map(stated)
    shapes = {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    audit(shapes, opened.checkpoint, weight_map)
    plan = plan_memory(
        stated,
        plugin.cache_specs(stated, dtype, Shard()),
        options,
        _budget(device, limits),
        weight_bytes=_weight_bytes(model, opened, weight_map, device, dtype),
        itemsize=dtype.itemsize,
    )
    return Prepared(plugin, stated, options, progress, opened, model, weight_map, device, dtype, plan)


def _weight_bytes(
    model: nn.Module, opened: OpenedModel, weight_map: WeightMap, device: torch.device, dtype: torch.dtype
) -> int:
    """All parameters in `dtype`, and the largest tensor once more, as loading holds it for a moment."""
    total = sum(
        parameter.numel() * dtype.itemsize
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in weight_map.tie
    )
    if device.type == "cpu" and dtype == torch.bfloat16:
        # A tied head is packed for the matrix product while the embedding keeps its rows.
        tied = {name.rpartition(".")[0] for name in weight_map.tie}
        total += sum(
            module.in_features * module.out_features * dtype.itemsize
            for name, module in model.named_modules()
            if name in tied and isinstance(module, Linear)
        )
    largest = max((info.num_elements for info in opened.checkpoint.tensors.values()), default=0)
    return total + largest * dtype.itemsize


def _budget(device: torch.device, limits: ResourceLimits | None) -> Budget:
    """What may be used: the memory that is free, or the limit if that is less."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Budget(free, f"free on {device}")
    free = available_bytes()
    if limits is not None and limits.memory_gb * 1e9 < free:
        return Budget(int(limits.memory_gb * 1e9), "memory_gb")
    return Budget(free, "free memory")
