"""The checkpoint that would fill a model, where none is at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from inference_pio.loader.patterns import PatternTable, fill_in
from inference_pio.loader.tensor_info import DescribedCheckpoint, TensorInfo
from inference_pio.loader.weight_plan import Piece, Shape, Target, WeightPlan
from inference_pio.plugin.facts import WeightMap

# What a config.json calls its weights' type; what safetensors call it, and its bytes.
STORED = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4)}


def described_by(
    parameters: Mapping[str, Shape], weight_map: WeightMap, path: Path, stored: str
) -> tuple[DescribedCheckpoint, WeightPlan]:
    """The checkpoint that would fill a model, and the way it would go.

    Tensors that are merged into one parameter count as one, entries of a stack one by one: a checkpoint's tensors are
    the parts of the former, so that the largest of them may be smaller than it looks here.

    Args:
        stored: the type of the weights, as config.json names it.
    """
    kind, size = STORED[stored]
    tie, stack = PatternTable(weight_map.tie), PatternTable(weight_map.stack)
    tensors: dict[str, TensorInfo] = {}
    plan = WeightPlan()
    for name, shape in parameters.items():
        if (other := tie.find(name)) is not None:
            plan.tied[name] = fill_in(*other)
            continue
        stacked = stack.find(name) is not None
        entries = [f"{name}.{entry}" for entry in range(shape[0])] if stacked else [name]
        inner = shape[1:] if stacked else shape
        pieces = []
        for index, source in enumerate(entries):
            tensors[source] = TensorInfo(source, inner, kind, math.prod(inner) * size)
            pieces.append(Piece(source, None, None, None, inner, index, 0, source))
        plan.targets[name] = Target(name, shape, stacked, tuple(pieces))
    return DescribedCheckpoint(path, "safetensors", tensors), plan
