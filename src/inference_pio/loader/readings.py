"""In which steps a checkpoint is read: a tensor each, and a few matrices each of a tensor that is a stack of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from inference_pio.loader.tensor_info import TensorInfo
from inference_pio.loader.weight_plan import Piece, Target, WeightPlan

# Of a stack at once: enough for a disk to be fast, and little beside the experts of one layer.
_STACK_BYTES = 16 << 20


@dataclass(frozen=True)
class Reading:
    """source  the checkpoint's tensor
    part    (first, number) of its entries along dimension 0; None is all of it
    uses    where its pieces go; a tensor that is split goes to several parameters
    nbytes  in the file
    """

    source: str
    part: tuple[int, int] | None
    uses: tuple[tuple[Target, Piece], ...]
    nbytes: int


def plan_readings(plan: WeightPlan, tensors: Mapping[str, TensorInfo]) -> list[Reading]:
    """The largest tensor first: what is read of it then stands beside few weights. Tied ones last: what they are
    compared with has to be there.
    """
    tied = [plan.targets[name] for name in plan.tied if name in plan.targets]
    plain = [target for target in plan.targets.values() if target.name not in plan.tied]
    uses: dict[str, list[tuple[Target, Piece]]] = {}
    for target in (*plain, *tied):
        for piece in target.pieces:
            uses.setdefault(piece.source, []).append((target, piece))
    largest = max(uses, key=lambda source: tensors[source].nbytes, default="")
    order = sorted(uses, key=largest.__ne__)
    return [reading for source in order for reading in _readings(tensors[source], uses[source])]


def _readings(info: TensorInfo, uses: list[tuple[Target, Piece]]) -> list[Reading]:
    if any(piece.entry is None for _, piece in uses):
        return [Reading(info.name, None, tuple(uses), info.nbytes)]
    entries = info.shape[0]
    size = info.nbytes // entries
    step = max(1, _STACK_BYTES // max(1, size))
    readings = []
    for first in range(0, entries, step):
        span = range(first, min(first + step, entries))
        these = tuple(use for use in uses if use[1].entry in span)
        readings.append(Reading(info.name, (first, len(span)), these, len(span) * size))
    return readings


def without(readings: list[Reading], names: Collection[str]) -> list[Reading]:
    """What is left to read where these parameters are there already."""
    left = []
    for reading in readings:
        uses = tuple(use for use in reading.uses if use[0].name not in names)
        if uses:
            left.append(replace(reading, uses=uses))
    return left
