"""Which tensors of a checkpoint become blocks, and of which kind, when the checkpoint itself is quantised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from inference_pio.layers import Linear, VocabParallelEmbedding, VocabParallelHead
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.packing import plan_packing
from inference_pio.loader.tensor_info import CheckpointHeader, DescribedCheckpoint, TensorInfo
from inference_pio.loader.weight_plan import Target, WeightPlan
from inference_pio.plugin.quantization import Quantization

# Embeddings and heads keep 8 bits, whatever the others have: each token's row is one row, with nobody to make up for
# its errors, and the head's go straight into probabilities.
_OF_VOCABULARY = "Q8_0"


def kinds_of(
    model: nn.Module, header: CheckpointHeader, plan: WeightPlan, wanted: Quantization, *, again: bool
) -> dict[str, str]:
    """Tensor -> the kind of blocks that it becomes, in the order of the file; what is missing here stays as it is.

    Args:
        again: round blocks of as few bits once more, too.
    """
    packing = plan_packing(model, _as_floats(header) if again else header, plan, wanted)
    found: dict[str, str] = {}
    for name, kinds in packing.kinds.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        of_vocabulary = isinstance(owner, VocabParallelEmbedding | VocabParallelHead)
        kind = _OF_VOCABULARY if of_vocabulary else wanted.kind
        for piece, becomes in zip(plan.targets[name].pieces, kinds, strict=True):
            small = _bits(header.tensors[piece.source].dtype) <= _bits(kind)
            if becomes == wanted.kind and not (small and (of_vocabulary or not again)):
                found[piece.source] = max(kind, found.get(piece.source, kind), key=_bits)
    return {name: found[name] for name in header.tensors if name in found}


def as_blocks(header: CheckpointHeader, kinds: Mapping[str, str]) -> dict[str, TensorInfo]:
    """The tensors of the file that is to be written."""
    return {
        name: replace(info, dtype=kinds[name], nbytes=TYPES_BY_NAME[kinds[name]].nbytes(info.num_elements))
        if name in kinds
        else info
        for name, info in header.tensors.items()
    }


def seen_targets(model: nn.Module, plan: WeightPlan, kinds: Mapping[str, str]) -> dict[str, Target]:
    """Module -> its weight, of those that a calibration text can tell something about: linear maps, whose rows lie in
    the file as they do in the module. Not embeddings, which have no input, not heads, which keep 8 bits, not experts,
    of which each token meets a few.
    """
    found = {}
    for target in plan.targets.values():
        module, _, leaf = target.name.rpartition(".")
        owner = model.get_submodule(module)
        if leaf != "weight" or not isinstance(owner, Linear) or isinstance(owner, VocabParallelHead):
            continue
        in_place = all(
            piece.entry is None and not (piece.rows and piece.source in plan.heads) for piece in target.pieces
        )
        if in_place and any(piece.source in kinds for piece in target.pieces):
            found[module] = target
    return found


def parts_of(info: TensorInfo, most_bytes: int) -> Iterator[tuple[int, int]]:
    """(first, number) along dimension 0, so that what is read at once has about so many bytes as float32."""
    entries = info.shape[0] if info.shape else 1
    step = max(1, most_bytes // max(1, 4 * info.num_elements // max(1, entries)))
    for first in range(0, entries, step):
        yield first, min(step, entries - first)


def _as_floats(header: CheckpointHeader) -> DescribedCheckpoint:
    tensors = {name: replace(info, dtype="F32") for name, info in header.tensors.items()}
    return DescribedCheckpoint(header.path, header.format, tensors)


def _bits(kind: str) -> float:
    known = TYPES_BY_NAME.get(kind)
    return 16 if known is None else 8 * known.block_bytes / known.block_size
