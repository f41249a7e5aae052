"""Floats to blocks of 256 values: each number is rounded to the nearest one, scales are fitted by least squares.

Layouts are those of ggml-common.h, the inverse of `inference_pio.loader.dequantize`. These are simple encoders, good
enough to make a model of which a comparison says something; those of llama.cpp search longer and weigh the columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inference_pio.loader.quant_tables import IQ2_GRID, IQ4_VALUES

_ROUNDS = 6  # of fitting scales to numbers and numbers to scales; more change next to nothing
_PIECE = 1 << 20  # values at once


def encode_super(values_RC: Tensor, kind: str) -> Tensor:
    """float32 [rows, columns], columns a multiple of 256 → uint8 [rows, bytes of a row]."""
    blocks = values_RC.reshape(-1, 256)
    data = torch.cat([ENCODERS[kind](piece) for piece in blocks.split(_PIECE // 256)])
    return data.view(len(values_RC), -1)


# Scales -------------------------------------------------------------------------------------------------------------


def _affine(values_NSW: Tensor, most: int, most_scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """value ≈ d · scale · number − dmin · minimum: numbers [N, S, W], scale and minimum [N, S], d and dmin [N, 1]."""
    low = values_NSW.amin(2, keepdim=True).clamp_max(0)
    step = (values_NSW.amax(2, keepdim=True) - low) / most
    for _ in range(_ROUNDS):
        numbers = _divided(values_NSW - low, step).round().clamp(0, most)
        mean, mean_number = values_NSW.mean(2, keepdim=True), numbers.mean(2, keepdim=True)
        spread = ((numbers - mean_number) ** 2).sum(2, keepdim=True)
        slope = _divided(((numbers - mean_number) * (values_NSW - mean)).sum(2, keepdim=True), spread)
        through_zero = _divided(
            (numbers * values_NSW).sum(2, keepdim=True), (numbers**2).sum(2, keepdim=True)
        )
        shift = mean - slope * mean_number
        step = torch.where(shift < 0, slope, through_zero).clamp_min(0)
        low = shift.clamp_max(0)
    d, scale = _quantised(step.squeeze(2), 0, most_scale)
    dmin, minimum = _quantised(-low.squeeze(2), 0, most_scale)
    steps, lows = ((unit.float() * factor).unsqueeze(2) for unit, factor in ((d, scale), (dmin, minimum)))
    numbers = _divided(values_NSW + lows, steps).round().clamp(0, most)
    return numbers.byte(), scale.byte(), minimum.byte(), d, dmin


def _symmetric(values_NSW: Tensor, levels: Tensor, least_scale: int) -> tuple[Tensor, Tensor, Tensor]:
    """value ≈ d · scale · levels[number]: numbers [N, S, W], scale [N, S] from `least_scale` on, d [N, 1].

    Levels ascend, and the lowest is the largest in magnitude: the value largest in magnitude begins there.
    """
    at = values_NSW.abs().argmax(2, keepdim=True)
    step = values_NSW.gather(2, at) / levels[0]
    for _ in range(_ROUNDS):
        near = levels[_nearest(values_NSW, step, levels)]
        step = _divided((near * values_NSW).sum(2, keepdim=True), (near**2).sum(2, keepdim=True))
    d, scale = _quantised(step.squeeze(2), least_scale, -least_scale - 1)
    return _nearest(values_NSW, (d.float() * scale).unsqueeze(2), levels), scale, d


def _nearest(values_NSW: Tensor, step: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(_divided(values_NSW, step), (levels[1:] + levels[:-1]) / 2)


def _quantised(scales_NS: Tensor, least: int, most: int) -> tuple[Tensor, Tensor]:
    """float16 [N, 1] d and whole numbers [N, S] whose products are the scales, as near as they get."""
    largest = scales_NS.gather(1, scales_NS.abs().argmax(1, keepdim=True))
    d = (largest / (least or most)).half()
    return d, _divided(scales_NS, d.float()).round().clamp(least, most)


def _divided(values: Tensor, by: Tensor) -> Tensor:
    return torch.where(by != 0, values / torch.where(by != 0, by, 1.0), 0.0)


# Bits ---------------------------------------------------------------------------------------------------------------


def _fields(numbers: Tensor, bits: int) -> Tensor:
    """[..., 8 / bits, w] → uint8 [..., w]: number i of each byte, the lowest first."""
    shifted = [part.byte() << bits * i for i, part in enumerate(numbers.unbind(-2))]
    return torch.stack(shifted).sum(0).byte()


def _bytes(value: Tensor) -> Tensor:
    return value.contiguous().view(torch.uint8)


def _six_bits(scale_N8: Tensor, minimum_N8: Tensor) -> Tensor:
    """Eight scales and eight minima of 6 bits → uint8 [N, 12]: the last four lend their upper bits to the first."""
    first, second = ((part[:, :4] | part[:, 4:] >> 4 << 6) for part in (scale_N8, minimum_N8))
    return torch.cat((first, second, scale_N8[:, 4:] & 15 | (minimum_N8[:, 4:] & 15) << 4), dim=1)


# Kinds --------------------------------------------------------------------------------------------------------------


def _q2_k(blocks: Tensor) -> Tensor:
    numbers, scale, minimum, d, dmin = _affine(blocks.view(-1, 16, 16), 3, 15)
    packed = _fields(numbers.reshape(-1, 2, 4, 32), 2).flatten(1)
    return torch.cat((scale | minimum << 4, packed, _bytes(d), _bytes(dmin)), dim=1)


def _q3_k(blocks: Tensor) -> Tensor:
    numbers, scale, d = _symmetric(blocks.view(-1, 16, 16), torch.arange(-4.0, 4.0), -32)
    packed = _fields((numbers & 3).reshape(-1, 2, 4, 32), 2).flatten(1)
    high = _fields((numbers >> 2).reshape(-1, 8, 32), 1)
    scales = (scale + 32).byte()
    low_scales = _fields((scales & 15).view(-1, 2, 8), 4)
    high_scales = _fields((scales >> 4).view(-1, 4, 4), 2)
    return torch.cat((high, packed, low_scales, high_scales, _bytes(d)), dim=1)


def _q4_k(blocks: Tensor) -> Tensor:
    numbers, scale, minimum, d, dmin = _affine(blocks.view(-1, 8, 32), 15, 63)
    packed = _fields(numbers.view(-1, 4, 2, 32), 4).flatten(1)
    return torch.cat((_bytes(d), _bytes(dmin), _six_bits(scale, minimum), packed), dim=1)


def _q5_k(blocks: Tensor) -> Tensor:
    numbers, scale, minimum, d, dmin = _affine(blocks.view(-1, 8, 32), 31, 63)
    packed = _fields((numbers & 15).view(-1, 4, 2, 32), 4).flatten(1)
    return torch.cat(
        (_bytes(d), _bytes(dmin), _six_bits(scale, minimum), _fields(numbers >> 4, 1), packed), dim=1
    )


def _q6_k(blocks: Tensor) -> Tensor:
    numbers, scale, d = _symmetric(blocks.view(-1, 16, 16), torch.arange(-32.0, 32.0), -128)
    low = _fields((numbers & 15).reshape(-1, 2, 2, 64), 4).flatten(1)
    high = _fields((numbers >> 4).reshape(-1, 2, 4, 32), 2).flatten(1)
    return torch.cat((low, high, _bytes(scale.to(torch.int8)), _bytes(d)), dim=1)


def _iq4_xs(blocks: Tensor) -> Tensor:
    numbers, scale, d = _symmetric(blocks.view(-1, 8, 32), IQ4_VALUES, -32)
    scales = (scale + 32).byte()
    low = _fields((scales & 15).view(-1, 4, 2).transpose(1, 2), 4)
    high = _fields((scales >> 4).view(-1, 2, 4).transpose(1, 2), 2)
    return torch.cat((_bytes(d), high, low, _fields(numbers.view(-1, 8, 2, 16), 4).flatten(1)), dim=1)


def _iq2_xxs(blocks: Tensor) -> Tensor:
    """Steps are d · (0.5 + scale) / 4, scale 0 to 15 for 32 values; eight magnitudes are a point of a grid."""
    groups = blocks.view(-1, 8, 4, 8)
    step = groups.square().mean((2, 3), keepdim=True).sqrt() / 16  # magnitudes are 8, 25, 43
    for _ in range(2):  # slow: every grid point is tried
        points, signed = _points(groups, step)
        step = _divided((signed * groups).sum((2, 3), keepdim=True), (signed**2).sum((2, 3), keepdim=True))
    d = (step.amax((1, 2, 3)) * 4 / 15.5).half()[:, None]
    scale = (_divided(step.view(-1, 8) * 4, d.float()) - 0.5).round().clamp(0, 15)
    points, signed = _points(groups, (d.float() * (scale + 0.5) / 4)[:, :, None, None])
    bits = ((signed[..., :7] < 0).long() << torch.arange(7)).sum(3)
    word = (bits << torch.tensor([0, 7, 14, 21])).sum(2) | scale.long() << 28
    # Four bytes of a 32-bit number: PyTorch has no shifts of unsigned ones.
    word_bytes = torch.stack([word >> shift & 255 for shift in (0, 8, 16, 24)], dim=2).byte()
    return torch.cat((_bytes(d), torch.cat((points.byte(), word_bytes), dim=2).flatten(1)), dim=1)


def _points(groups: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 8, 4] numbers of the nearest grid points, and their values with signs [N, 8, 4, 8], an even number of −."""
    ratio = _divided(groups, step)
    odd = (ratio < 0).sum(3, keepdim=True) % 2 == 1
    smallest = ratio.abs().argmin(3, keepdim=True)
    # Whatever is smallest gets the other sign where their number would be odd: it then counts as a negative magnitude.
    flipped = torch.zeros_like(ratio, dtype=torch.bool).scatter(3, smallest, odd)
    magnitude = torch.where(flipped, -ratio.abs(), ratio.abs())
    distance = IQ2_GRID.square().sum(1) - 2 * magnitude @ IQ2_GRID.T
    points = distance.argmin(3)
    return points, IQ2_GRID[points] * torch.where((ratio < 0) ^ flipped, -1.0, 1.0)


ENCODERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
    "IQ2_XXS": _iq2_xxs,
}
