"""A head's key or value in whole numbers of 8 or 4 bits times one scale, as caches keep it.

A head is turned first: multiplied with Hadamard's matrix, so that the few large channels that keys tend to have are
spread over all and do not set the step of the others (QuaRot, Ashkboos et al. 2024, section 4.2). Turning twice gives
the head back, and a turned query times a turned key is the query times the key: nothing but rounding changes.

Shape letters: H head size, W its width in the cache. All of it is torch, on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHOLE_NUMBERS = (torch.int8, torch.uint8)  # of 8 bits, and two of 4 bits in each byte
SCALE_DTYPE = torch.bfloat16
_GROUP = (
    32  # of 4 bits: the lower halves of 16 bytes hold the first 16 numbers, their upper halves the others
)


def kept_width(head_dim: int, dtype: torch.dtype) -> int:
    """Numbers of `dtype` that hold a head: W."""
    return head_dim // 2 if dtype == torch.uint8 else head_dim


def turn(x: Tensor) -> Tensor:
    """x times Hadamard's matrix of +1 and -1, [..., H], in float32.

    Where H is no power of two, each part is turned whose width is the largest one that divides H. The order of
    additions is that of the native kernels.
    """
    width = turned_width(x.shape[-1])
    y, step = x.float(), 1
    while step < width:
        low, high = y.unflatten(-1, (-1, 2, step)).unbind(-2)
        y = torch.stack((low + high, low - high), dim=-2).flatten(-3)
        step *= 2
    return y


def turned_width(head_dim: int) -> int:
    return head_dim & -head_dim


def quantize_heads(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Turned whole numbers [..., W] of `dtype` and bfloat16 scales [...]: turn(x) / turned_width to half a scale each.

    Of 8 bits n stands for n, of 4 bits for n - 7.5, so that both signs have as many. A scale is rounded up before it
    divides: its 16 bits cost no accuracy. What is not finite has a scale NaN, and what is too small to divide by one
    next to nothing; their numbers are the middle ones.
    """
    y = turn(x.float() / turned_width(x.shape[-1]))
    largest = y.abs().amax(dim=-1)
    scale = _rounded_up(largest / (127 if dtype == torch.int8 else 8))
    inverse = (1 / scale)[..., None]
    usable = inverse.isfinite()
    if dtype == torch.int8:
        return (y * inverse).round().where(usable, 0.0).to(dtype), scale.to(SCALE_DTYPE)
    whole = (y * inverse - 0.5).round().clamp(-8, 7).where(usable, 0.0)
    return _two_in_each_byte(whole.to(torch.int16) + 8), scale.to(SCALE_DTYPE)


def dequantize_heads(numbers: Tensor, scales: Tensor) -> Tensor:
    """float32 [..., H] out of whole numbers [..., W] and scales [...]."""
    whole = numbers.float() if numbers.dtype == torch.int8 else _numbers_of(numbers) - 7.5
    return turn(whole * scales.float()[..., None])


def _rounded_up(x: Tensor) -> Tensor:
    """The next bfloat16, in float32; x is not negative."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32).where(x.isfinite(), float("nan"))


def _two_in_each_byte(numbers: Tensor) -> Tensor:
    groups = numbers.split(_GROUP, dim=-1)
    halves = [group.chunk(2, dim=-1) for group in groups]
    return torch.cat([low | high << 4 for low, high in halves], dim=-1).to(torch.uint8)


def _numbers_of(packed: Tensor) -> Tensor:
    groups = packed.split(_GROUP // 2, dim=-1)
    return torch.cat([part for group in groups for part in (group & 15, group >> 4)], dim=-1).float()
