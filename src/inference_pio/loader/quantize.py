"""From floats to blocks, by rounding to nearest."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 32
_PIECE = 1 << 20  # values at once


def quantize_rows(weight_OI: Tensor, kind: str, group_size: int) -> Tensor:
    """float32 [O, I] → uint8 [O, bytes of a row] in blocks of Q8_0 (symmetric) or Q4_1 (with a minimum).

    `group_size` columns, a multiple of 32, share scale and minimum; a shorter last group stands alone.
    """
    step = max(1, _PIECE // weight_OI.shape[1])
    encode = _q8_0 if kind == "Q8_0" else _q4_1
    parts = [encode(_grouped(rows, group_size)) for rows in weight_OI.split(step)]
    return torch.cat([part.reshape(-1, part.shape[1] * part.shape[2]) for part in parts])


def _grouped(rows_RI: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values [R, blocks, 32], and the least and largest of each block's group [R, blocks, 1]."""
    blocks = rows_RI.unflatten(1, (-1, _BLOCK))
    low, high = blocks.amin(2), blocks.amax(2)
    per_group = group_size // _BLOCK
    for first in range(0, blocks.shape[1], per_group):
        group = slice(first, first + per_group)
        low[:, group] = low[:, group].amin(1, keepdim=True)
        high[:, group] = high[:, group].amax(1, keepdim=True)
    return blocks, low.unsqueeze(2), high.unsqueeze(2)


def _q8_0(grouped: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    values, low, high = grouped
    scale = (torch.maximum(-low, high) / 127).half()
    numbers = _divided(values, scale.float()).round().clamp(-127, 127).to(torch.int8)
    return torch.cat((scale.view(torch.uint8), numbers.view(torch.uint8)), dim=2)


def _q4_1(grouped: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    values, low, high = grouped
    minimum = low.half()
    scale = ((high - minimum.float()) / 15).half()
    numbers = _divided(values - minimum.float(), scale.float()).round().clamp(0, 15).to(torch.uint8)
    first, second = numbers.split(_BLOCK // 2, dim=2)
    return torch.cat((scale.view(torch.uint8), minimum.view(torch.uint8), first | second << 4), dim=2)


def _divided(values: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, values / scale.clamp_min(1e-30), 0.0)
