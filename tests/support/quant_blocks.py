"""Blocks of random numbers with scales as files have them: finite, of both signs, now and then zero."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.loader.dequantize import dequantize
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.quant_tables import IQ2_GRID
from inference_pio.ops.quantized import KINDS

__all__ = ["KINDS", "blocks_of", "dequantized", "random_blocks", "random_bytes"]

# Where a block holds 16-bit floats.
_HALVES = {
    "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
CODEBOOK = torch.stack([IQ2_GRID == 25, IQ2_GRID == 43], dim=-1).to(torch.uint8) @ torch.tensor(
    [1, 2], dtype=torch.uint8
)


def random_bytes(kind: str, rows: int, columns: int, seed: int = 0) -> Tensor:
    """uint8 [rows, bytes of a row]."""
    stored = TYPES_BY_NAME[kind]
    rng = torch.Generator().manual_seed(seed)
    shape = (rows, columns // stored.block_size)
    blocks = torch.randint(0, 256, (*shape, stored.block_bytes), generator=rng, dtype=torch.uint8)
    for at in _HALVES.get(kind, (0,)):
        scale = torch.randn(shape, generator=rng) * 0.1
        scale[torch.rand(shape, generator=rng) < 0.02] = 0.0
        blocks[..., at : at + 2] = scale.half().unsqueeze(-1).view(torch.uint8)
    return blocks.flatten(1)


def blocks_of(kind: str, data: Tensor, columns: int) -> ops.Blocks:
    return ops.Blocks(kind, data, columns, CODEBOOK if kind == "IQ2_XXS" else ops.Blocks.codebook)


def random_blocks(kind: str, rows: int, columns: int, seed: int = 0) -> ops.Blocks:
    return blocks_of(kind, random_bytes(kind, rows, columns, seed), columns)


def dequantized(blocks: ops.Blocks) -> Tensor:
    """float32 [rows, columns], as the loader decodes them."""
    stored = TYPES_BY_NAME[blocks.kind]
    flat = blocks.data.reshape(-1, stored.block_bytes)
    return dequantize(flat, blocks.kind).view(blocks.data.shape[0], blocks.columns)
