"""What a model's weights take in memory, and what loading them takes for a moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from inference_pio.layers import Linear
from inference_pio.layers.protocol import KeepsDtype
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.packing import Packing
from inference_pio.loader.readings import Reading, plan_readings
from inference_pio.loader.tensor_info import CheckpointHeader
from inference_pio.loader.weight_plan import Target, WeightPlan

# Tensors that are read ahead where memory does not matter.
_AHEAD = 8


def weight_bytes(
    model: nn.Module,
    weights: WeightPlan,
    packing: Packing,
    device: torch.device,
    dtype: torch.dtype,
) -> int:
    """All parameters as they will lie in memory."""
    total = 0
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in packing.kinds:
            total += packing.nbytes(weights.targets[name])
        elif name not in weights.tied:
            owner = model.get_submodule(name.rpartition(".")[0])
            kept = owner.parameter_dtype if isinstance(owner, KeepsDtype) else dtype
            total += parameter.numel() * kept.itemsize
    if device.type == "cpu" and dtype == torch.bfloat16:
        # A tied head is packed for the matrix product while the embedding keeps its rows.
        tied = {name.rpartition(".")[0] for name in weights.tied}
        total += sum(
            module.in_features * module.out_features * dtype.itemsize
            for name, module in model.named_modules()
            if name in tied and isinstance(module, Linear)
        )
    return total


@dataclass(frozen=True)
class LoadingBytes:
    """beside  the parameters, for a moment, at the worst of them
    first   in all, while the largest tensor, which is read first, is put in its place
    """

    beside: int
    first: int


def loading_bytes(
    header: CheckpointHeader, weights: WeightPlan, packing: Packing, dtype: torch.dtype, ahead: int
) -> LoadingBytes:
    """Of dense weights the largest tensor once more, and as many as are read ahead. Where weights are packed, readings
    in their order: what is packed already, what waits for the other parts of its parameter, and what is read.
    """
    if not packing.kinds:
        largest = max((info.num_elements for info in header.tensors.values()), default=0)
        return LoadingBytes((ahead + 1) * largest * dtype.itemsize, 0)
    readings = plan_readings(weights, header.tensors)
    sizes = [_read_bytes(reading, header, packing, dtype) for reading in readings]
    left = {name: len(target.pieces) for name, target in weights.targets.items()}
    whole = {name: _placed_bytes(target, packing, dtype) for name, target in weights.targets.items()}
    waiting: Counter[str] = Counter()
    placed, moments = 0, []
    for number, reading in enumerate(readings):
        done = []
        for target, _ in reading.uses:
            left[target.name] -= 1
            waiting[target.name] += sizes[number] // len(reading.uses)
            if target.stacked or not left[target.name]:  # of a stack each part has its place at once
                share = len(target.pieces) if target.stacked else 1
                placed += whole[target.name] // share
                done.append(target.name)
        # What was read last is among what waits, though its parameter is packed by now.
        moments.append(placed + waiting.total() + sum(sizes[number + 1 : number + 1 + ahead]))
        for name in done:
            waiting.pop(name, None)
    return LoadingBytes(max(moments) - placed, moments[0])


def _read_bytes(reading: Reading, header: CheckpointHeader, packing: Packing, dtype: torch.dtype) -> int:
    """What was read, as it is handed on: blocks as they are in the file, floats that become blocks with those."""
    info = header.tensors[reading.source]
    count = info.num_elements * reading.nbytes // max(1, info.nbytes)
    kinds = {
        packing.kinds[target.name][target.place(piece)] if target.name in packing.kinds else None
        for target, piece in reading.uses
    }
    size = 0
    for kind in kinds:
        if kind == info.dtype:
            size += reading.nbytes
        elif kind is None:
            size += count * dtype.itemsize
        else:
            size += count * torch.float32.itemsize + TYPES_BY_NAME[kind].nbytes(count)
    return size


def _placed_bytes(target: Target, packing: Packing, dtype: torch.dtype) -> int:
    return packing.nbytes(target) if target.name in packing.kinds else prod(target.shape) * dtype.itemsize


def read_ahead(config: Any, packing: Packing) -> int:
    """Tensors that are read ahead of the one that is put in its place, at most."""
    if not config.low_cpu_mem_usage:
        return _AHEAD
    return 1 if packing.kinds else 0
