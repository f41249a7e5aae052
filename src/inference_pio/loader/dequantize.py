"""Blocks of quantised values to floating point, exactly as the reference implementation computes them.

Every decoder takes `blocks` uint8 [n, block_bytes] and returns float32 [n, block_size]. The layouts are those of
ggml-common.h; the order of floating point operations is that of ggml's dequantize_row_* functions, so that results are
equal bit for bit (products and sums are rounded one by one: no fused multiply-add).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.quant_tables import IQ2_GRID, IQ2_SIGNS, IQ4_VALUES


def dequantize(blocks: Tensor, type_name: str) -> Tensor:
    """blocks: uint8 [n, block_bytes] of a quantised type → float32 [n, block_size].

    Temporary memory is a few times the result's: callers bound it by passing pieces of a tensor.
    """
    kind = TYPES_BY_NAME[type_name]
    return DECODERS[type_name](blocks).reshape(blocks.shape[0], kind.block_size)


def _half(two_bytes: Tensor) -> Tensor:
    """uint8 [..., 2k] holding k little-endian float16 → float32 [..., k]."""
    return two_bytes.contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """uint8 [..., w] → [..., 2, w]: all low halves, then all high halves."""
    return torch.stack((packed & 15, packed >> 4), dim=-2)


def _fields(packed: Tensor, bits: int) -> Tensor:
    """uint8 [..., w] → [..., 8 / bits, w]: field i of every byte, the lowest first."""
    mask = (1 << bits) - 1
    return torch.stack([(packed >> shift) & mask for shift in range(0, 8, bits)], dim=-2)


def _bit_list(packed: Tensor) -> Tensor:
    """uint8 [n, w] → [n, 8 w]: the bits of a little-endian number, the lowest first."""
    return _fields(packed, 1).transpose(-1, -2).reshape(packed.shape[0], -1)


def _lookup(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a small table: [entries, ...] at index [...] (any integer type)."""
    return table.index_select(0, index.reshape(-1).int()).view(*index.shape, *table.shape[1:])


def _q4_0(blocks: Tensor) -> Tensor:
    values = _nibbles(blocks[:, 2:]).flatten(1).float().sub_(8)
    return values.mul_(_half(blocks[:, :2]))


def _q4_1(blocks: Tensor) -> Tensor:
    scale, minimum = _half(blocks[:, :4]).split(1, dim=1)
    return _nibbles(blocks[:, 4:]).flatten(1).float().mul_(scale).add_(minimum)


def _q5_0(blocks: Tensor) -> Tensor:
    values = _nibbles(blocks[:, 6:]).flatten(1) | (_bit_list(blocks[:, 2:6]) << 4)
    return values.float().sub_(16).mul_(_half(blocks[:, :2]))


def _q5_1(blocks: Tensor) -> Tensor:
    scale, minimum = _half(blocks[:, :4]).split(1, dim=1)
    values = _nibbles(blocks[:, 8:]).flatten(1) | (_bit_list(blocks[:, 4:8]) << 4)
    return values.float().mul_(scale).add_(minimum)


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks[:, :2]))


def _q2_k(blocks: Tensor) -> Tensor:
    scales, packed = blocks[:, :16], blocks[:, 16:80]
    scale, minimum = _half(blocks[:, 80:84]).split(1, dim=1)
    step_n16 = scale * (scales & 15).float()
    offset_n16 = minimum * (scales >> 4).float()
    values = _fields(packed.unflatten(1, (2, 32)), 2).reshape(-1, 16, 16).float()
    return values.mul_(step_n16.unsqueeze(2)).sub_(offset_n16.unsqueeze(2))


def _q3_k(blocks: Tensor) -> Tensor:
    high_mask, packed, scales = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    # 16 scales of 6 bits: 4 low bits in the first 8 bytes (as nibbles), 2 high bits in the last 4
    low_n16 = _nibbles(scales[:, :8]).flatten(1)
    high_n16 = _fields(scales[:, 8:], 2).flatten(1)
    step_n16 = _half(blocks[:, 108:110]) * (low_n16 | (high_n16 << 4)).float().sub_(32)
    low = _fields(packed.unflatten(1, (2, 32)), 2).reshape(-1, 256)
    high = _fields(high_mask, 1).reshape(-1, 256)
    values = (low | (high << 2)).float().sub_(4)  # a set high bit means that 4 is not subtracted
    return values.view(-1, 16, 16).mul_(step_n16.unsqueeze(2))


def _k_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Eight 6-bit scales and eight 6-bit minima out of 12 bytes: float32 [n, 8] each."""
    first, second, rest = packed.unflatten(1, (3, 4)).unbind(1)
    scales = torch.cat((first & 63, (rest & 15) | ((first >> 2) & 48)), dim=1)
    minima = torch.cat((second & 63, (rest >> 4) | ((second >> 2) & 48)), dim=1)
    return scales.float(), minima.float()


def _k_affine(blocks: Tensor, values: Tensor) -> Tensor:
    """Values [n, 8, 32] of Q4_K and Q5_K, whose blocks begin alike: d, dmin, 12 bytes of scales."""
    scale, minimum = _half(blocks[:, :4]).split(1, dim=1)
    scales_n8, minima_n8 = _k_scales(blocks[:, 4:16])
    step_n8, offset_n8 = scale * scales_n8, minimum * minima_n8
    return values.float().mul_(step_n8.unsqueeze(2)).sub_(offset_n8.unsqueeze(2))


def _q4_k(blocks: Tensor) -> Tensor:
    return _k_affine(blocks, _nibbles(blocks[:, 16:144].unflatten(1, (4, 32))).reshape(-1, 8, 32))


def _q5_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, 48:176].unflatten(1, (4, 32))).reshape(-1, 8, 32)
    return _k_affine(blocks, low | (_fields(blocks[:, 16:48], 1) << 4))


def _q6_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[:, :128].unflatten(1, (2, 64))).reshape(-1, 256)
    high = _fields(blocks[:, 128:192].unflatten(1, (2, 32)), 2).reshape(-1, 256)
    step_n16 = _half(blocks[:, 208:210]) * blocks[:, 192:208].view(torch.int8).float()
    values = (low | (high << 4)).float().sub_(32)
    return values.view(-1, 16, 16).mul_(step_n16.unsqueeze(2))


def _iq4_nl(blocks: Tensor) -> Tensor:
    return _lookup(IQ4_VALUES, _nibbles(blocks[:, 2:]).flatten(1)).mul_(_half(blocks[:, :2]))


def _iq4_xs(blocks: Tensor) -> Tensor:
    # 8 scales of 6 bits: 4 low bits as consecutive nibbles, 2 high bits as consecutive fields of one 16-bit number
    low_n8 = _nibbles(blocks[:, 4:8]).transpose(1, 2).flatten(1)
    high_n8 = _fields(blocks[:, 2:4], 2).transpose(1, 2).flatten(1)
    step_n8 = _half(blocks[:, :2]) * (low_n8 | (high_n8 << 4)).float().sub_(32)
    indices = _nibbles(blocks[:, 8:136].unflatten(1, (8, 16))).reshape(-1, 8, 32)
    return _lookup(IQ4_VALUES, indices).mul_(step_n8.unsqueeze(2))


def _iq2_xxs(blocks: Tensor) -> Tensor:
    groups = blocks[:, 2:].unflatten(1, (8, 8))
    # The second four bytes of a group: four 7-bit sign patterns, and a 4-bit scale on top
    word_n8 = groups[:, :, 4:].contiguous().view(torch.int32).squeeze(2)
    scale_n8 = ((word_n8 >> 28) & 15).float()
    step_n8 = _half(blocks[:, :2]) * scale_n8.add_(0.5) * 0.25
    patterns = torch.stack([(word_n8 >> shift) & 127 for shift in (0, 7, 14, 21)], dim=2)
    values = _lookup(IQ2_GRID, groups[:, :, :4]).mul_(step_n8[:, :, None, None])
    return values.mul_(_lookup(IQ2_SIGNS, patterns))


DECODERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "IQ2_XXS": _iq2_xxs,
}
