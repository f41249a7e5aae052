"""What a model's weights take in memory, and what loading them takes for a moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from inference_pio.layers import Linear
from inference_pio.layers.protocol import KeepsDtype
from inference_pio.loader.packing import Packing
from inference_pio.loader.readings import plan_readings
from inference_pio.loader.tensor_info import CheckpointHeader
from inference_pio.loader.weight_plan import WeightPlan

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


def loading_bytes(
    header: CheckpointHeader, weights: WeightPlan, packing: Packing, dtype: torch.dtype, ahead: int
) -> int:
    """What loading holds beside the parameters for a moment: the largest tensor, as it is in the file where weights are
    packed, and as many more as are read ahead.
    """
    if packing.kinds:
        # What is read at once: a tensor, or a few matrices of a stack.
        return (ahead + 1) * max(reading.nbytes for reading in plan_readings(weights, header.tensors))
    largest = max((info.num_elements for info in header.tensors.values()), default=0)
    return (ahead + 1) * largest * dtype.itemsize


def read_ahead(config: Any, packing: Packing) -> int:
    """Tensors that are read ahead of the one that is put in its place, at most."""
    if not config.low_cpu_mem_usage:
        return _AHEAD
    return 1 if packing.kinds else 0
