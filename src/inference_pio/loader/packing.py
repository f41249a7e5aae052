"""Which parameters stay in blocks, of which kinds, and how their pieces are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from inference_pio import ops
from inference_pio.layers.protocol import TakesQuantized, TakesStacks
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.quant_tables import IQ2_GRID
from inference_pio.loader.tensor_info import Checkpoint, CheckpointHeader, HoldsBlocks, TensorInfo
from inference_pio.loader.weight_plan import Target, WeightPlan
from inference_pio.ops.rounding import quantize_rows
from inference_pio.plugin.quantization import Quantization

_COLUMNS = 32  # of one block of the packed layout
_MAGNITUDES = torch.tensor([8.0, 25.0, 43.0])


@dataclass(frozen=True)
class Packing:
    """kinds        parameter -> the kind of blocks of each of its pieces; what is missing here becomes dense
    quantization  how floats become blocks where the caller asked for it
    """

    kinds: Mapping[str, tuple[str, ...]]
    quantization: Quantization | None = None

    def nbytes(self, target: Target) -> int:
        """What the parameter takes as `ops.QuantizedWeight`."""
        return sum(
            ops.packed_bytes(kind, piece.shape[0], piece.shape[1])
            for kind, piece in zip(self.kinds[target.name], target.pieces, strict=True)
        )

    def stacked(self, plan: WeightPlan) -> list[str]:
        """Parameters of several matrices, in the plan's order: the experts of mixtures."""
        return [name for name, target in plan.targets.items() if target.stacked and name in self.kinds]

    def used_kinds(self) -> tuple[str, ...]:
        """Every kind of blocks there is, sorted."""
        return tuple(sorted({kind for kinds in self.kinds.values() for kind in kinds}))

    def read(
        self, checkpoint: Checkpoint, source: str, kind: str, part: tuple[int, int] | None = None
    ) -> ops.Blocks:
        """All rows of a tensor of the checkpoint, or of some of its matrices, as blocks of that kind."""
        info = checkpoint.tensors[source]
        if info.dtype == kind:
            assert isinstance(checkpoint, HoldsBlocks)
            codebook = iq2_codebook() if kind == "IQ2_XXS" else ops.Blocks.codebook
            return ops.Blocks(kind, checkpoint.read_blocks(source, part), info.shape[-1], codebook)
        assert self.quantization is not None
        values = checkpoint.read(source, torch.float32, part).flatten(0, -2)
        return ops.Blocks(kind, quantize_rows(values, kind, self.quantization.group_size), info.shape[-1])


NOTHING_PACKED = Packing({})


def plan_packing(
    model: nn.Module, header: CheckpointHeader, plan: WeightPlan, quantization: Quantization | None
) -> Packing:
    """Everything that can stay in blocks: weights of modules that take them, whole rows, of kinds that can be packed.

    A tied parameter shares what the other one has; where the checkpoint holds both they are compared as floats. Of a
    module of stacks all stay or none. Rows of blocks are columns where a matrix is stored turned over.
    """
    twice = {name for name in plan.tied if name in plan.targets}
    twice |= {plan.tied[name] for name in twice}
    kinds = {}
    mixed: set[str] = set()  # modules of stacks of which one at least becomes dense
    for target in plan.targets.values():
        module = target.name.rpartition(".")[0]
        owner = model.get_submodule(module)
        turned_over = any(piece.source in plan.transposed for piece in target.pieces)
        if target.name in twice or turned_over or not _takes_blocks(owner, target):
            continue
        found = _kinds(target, header, quantization)
        if found is not None:
            kinds[target.name] = found
        elif target.stacked:
            mixed.add(module)
    return Packing(
        {name: found for name, found in kinds.items() if name.rpartition(".")[0] not in mixed}, quantization
    )


def _takes_blocks(owner: nn.Module, target: Target) -> bool:
    if target.stacked:
        return isinstance(owner, TakesStacks)
    return isinstance(owner, TakesQuantized) and target.name.endswith(".weight")


def _kinds(
    target: Target, header: CheckpointHeader, quantization: Quantization | None
) -> tuple[str, ...] | None:
    """The kind of each piece; None where one has none, or entries of a stack differ."""
    if any(piece.cut is not None for piece in target.pieces):
        return None
    found = []
    for piece in target.pieces:
        kind = _kind(header.tensors[piece.source], 2 if piece.entry is None else 3, quantization)
        if kind is None:
            return None
        found.append(kind)
    width = len(found) // target.depth
    return tuple(found) if found == found[:width] * target.depth else None


def _kind(info: TensorInfo, dimensions: int, quantization: Quantization | None) -> str | None:
    if len(info.shape) != dimensions or info.shape[-1] % _COLUMNS:
        return None
    has_blocks = ops.can_pack(info.dtype)
    if quantization is None:
        return info.dtype if has_blocks else None
    if has_blocks and _bits(info.dtype) <= _bits(quantization.kind):
        return info.dtype
    return quantization.kind if ops.can_pack(quantization.kind) else None


def _bits(kind: str) -> float:
    found = TYPES_BY_NAME[kind]
    return 8 * found.block_bytes / found.block_size


def iq2_codebook() -> torch.Tensor:
    return torch.bucketize(IQ2_GRID, _MAGNITUDES).to(torch.uint8)
