"""Which parameters stay in blocks, of which kinds, and how their pieces are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from inference_pio import ops
from inference_pio.layers.protocol import TakesQuantized
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.quant_tables import IQ2_GRID
from inference_pio.loader.quantize import quantize_rows
from inference_pio.loader.tensor_info import Checkpoint, CheckpointHeader, HoldsBlocks, TensorInfo
from inference_pio.loader.weight_plan import Target, WeightPlan
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

    def used_kinds(self) -> tuple[str, ...]:
        """Every kind of blocks there is, sorted."""
        return tuple(sorted({kind for kinds in self.kinds.values() for kind in kinds}))

    def read(self, checkpoint: Checkpoint, source: str, kind: str) -> ops.Blocks:
        """All rows of a tensor of the checkpoint, as blocks of that kind."""
        info = checkpoint.tensors[source]
        if info.dtype == kind:
            assert isinstance(checkpoint, HoldsBlocks)
            codebook = iq2_codebook() if kind == "IQ2_XXS" else ops.Blocks.codebook
            return ops.Blocks(kind, checkpoint.read_blocks(source), info.shape[1], codebook)
        assert self.quantization is not None
        rows = quantize_rows(checkpoint.read(source, torch.float32), kind, self.quantization.group_size)
        return ops.Blocks(kind, rows, info.shape[1])


NOTHING_PACKED = Packing({})


def plan_packing(
    model: nn.Module, header: CheckpointHeader, plan: WeightPlan, quantization: Quantization | None
) -> Packing:
    """Everything that can stay in blocks: weights of modules that take them, whole rows, of kinds that can be packed.

    A tied parameter shares what the other one has; where the checkpoint holds both they are compared as floats.
    """
    twice = {name for name in plan.tied if name in plan.targets}
    twice |= {plan.tied[name] for name in twice}
    kinds = {}
    for target in plan.targets.values():
        owner = model.get_submodule(target.name.rpartition(".")[0])
        if target.name in twice or target.stacked or not isinstance(owner, TakesQuantized):
            continue
        if not target.name.endswith(".weight") or any(piece.cut is not None for piece in target.pieces):
            continue
        found = [_kind(header.tensors[piece.source], quantization) for piece in target.pieces]
        if all(kind is not None for kind in found):
            kinds[target.name] = tuple(kind for kind in found if kind is not None)
    return Packing(kinds, quantization)


def _kind(info: TensorInfo, quantization: Quantization | None) -> str | None:
    if len(info.shape) != 2 or info.shape[1] % _COLUMNS:
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
