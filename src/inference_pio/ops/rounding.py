"""From floats to blocks of Q8_0 and Q4_1: the numbers that a block may hold, and rounding to the nearest of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
_PIECE = 1 << 20  # values at once
# How much of a group's span the candidates of `fitted` keep: what lies outside is cut off.
_SPANS = tuple(1 - 0.05 * step for step in range(7))


@dataclass(frozen=True)
class Grid:
    """What the values of each group of columns may be: minimum + scale · n, n from `least` to `most`.

    scale, minimum  float16 [R, groups]; minimum None is zero (Q8_0)
    """

    scale: Tensor
    minimum: Tensor | None
    group_size: int

    @classmethod
    def spanning(cls, rows_RI: Tensor, kind: str, group_size: int) -> Grid:
        """From the least to the largest value of each group; a shorter last group stands alone."""
        low, high = _spans(rows_RI, group_size)
        return cls._of(low, high, kind, group_size)

    @classmethod
    def fitted(cls, rows_RI: Tensor, kind: str, group_size: int, importance_I: Tensor) -> Grid:
        """The one of some narrower spans that leaves the least Σ importance · (value - rounded)² in each group.

        Through the numbers that each candidate gives, the line is drawn anew by weighted least squares (as llama.cpp's
        quantisers with an importance matrix do). Q8_0's 255 steps gain nothing from it: its grid spans.
        """
        low, high = _spans(rows_RI, group_size)
        whole = cls._of(low, high, kind, group_size)
        if whole.minimum is None:
            return whole
        values, weight = _padded(rows_RI, group_size), _padded(importance_I[None], group_size)
        scale, minimum = whole.scale.float(), whole.minimum.float()
        least = torch.full_like(scale, torch.inf)
        for span in _SPANS:
            cut = (high - low) * (1 - span) / 2
            found, at, error = _line(values, weight, low + cut, (high - low) * span / 15)
            better = error < least
            scale, minimum = torch.where(better, found, scale), torch.where(better, at, minimum)
            least = torch.where(better, error, least)
        return cls(scale.half(), minimum.half(), group_size)

    @classmethod
    def _of(cls, low: Tensor, high: Tensor, kind: str, group_size: int) -> Grid:
        if kind == "Q8_0":
            return cls((torch.maximum(-low, high) / 127).half(), None, group_size)
        minimum = low.half()
        return cls(((high - minimum.float()) / 15).half(), minimum, group_size)

    @property
    def least(self) -> int:
        return -127 if self.minimum is None else 0

    @property
    def most(self) -> int:
        return 127 if self.minimum is None else 15

    def column(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Scale and minimum, float32 [R], of one column."""
        group = index // self.group_size
        return self.scale[:, group].float(), None if self.minimum is None else self.minimum[:, group].float()

    def nearest(self, rows_RI: Tensor) -> Tensor:
        """float32 [R, I] whole numbers: those whose values are nearest."""
        scale, minimum = (self._of_columns(part, rows_RI.shape[1]) for part in (self.scale, self.minimum))
        return self.number_of(rows_RI, scale, minimum)

    def number_of(self, values: Tensor, scale: Tensor, minimum: Tensor | None) -> Tensor:
        shifted = values if minimum is None else values - minimum
        return _divided(shifted, scale).round_().clamp_(self.least, self.most)

    def blocks(self, numbers_RI: Tensor) -> Tensor:
        """uint8 [R, bytes of a row]: the numbers as ggml's block_q8_0 and block_q4_1 hold them (ggml-common.h)."""
        values = numbers_RI.unflatten(1, (-1, BLOCK))
        rows, blocks, _ = values.shape
        per_group = self.group_size // BLOCK

        def head(part: Tensor) -> Tensor:
            return (
                part.repeat_interleave(per_group, dim=1)[:, :blocks]
                .reshape(rows, blocks, 1)
                .view(torch.uint8)
            )

        if self.minimum is None:
            parts = [head(self.scale), values.to(torch.int8).view(torch.uint8)]
        else:
            first, second = values.to(torch.uint8).split(BLOCK // 2, dim=2)
            parts = [head(self.scale), head(self.minimum), first | second << 4]
        return torch.cat(parts, dim=2).flatten(1)

    def _of_columns(self, part: Tensor | None, columns: int) -> Tensor:
        if part is None:
            return self.scale.new_zeros(1, 1, dtype=torch.float32)
        return part.float().repeat_interleave(self.group_size, dim=1)[:, :columns]


def quantize_rows(weight_OI: Tensor, kind: str, group_size: int) -> Tensor:
    """float32 [O, I] → uint8 [O, bytes of a row] in blocks of Q8_0 (symmetric) or Q4_1 (with a minimum).

    `group_size` columns, a multiple of 32, share scale and minimum; a shorter last group stands alone.
    """
    parts = []
    for rows in weight_OI.split(rows_at_once(weight_OI.shape[1])):
        grid = Grid.spanning(rows, kind, group_size)
        parts.append(grid.blocks(grid.nearest(rows)))
    return torch.cat(parts)


def rows_at_once(columns: int) -> int:
    """Rows of a weight that are rounded in one piece: it stays in the processor's cache."""
    return max(1, _PIECE // columns)


def _spans(rows_RI: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each group, [R, groups]."""
    whole = rows_RI.shape[1] // group_size * group_size
    low, high = [], []
    for part, size in ((rows_RI[:, :whole], group_size), (rows_RI[:, whole:], rows_RI.shape[1] - whole)):
        if part.shape[1]:
            groups = part.unflatten(1, (-1, size))
            low.append(groups.amin(2))
            high.append(groups.amax(2))
    return torch.cat(low, 1), torch.cat(high, 1)


def _padded(rows_RI: Tensor, group_size: int) -> Tensor:
    """[R, groups, group_size], the last filled up with zeros; weights of zero make values there count nothing."""
    short = -rows_RI.shape[1] % group_size
    filled: Tensor = torch.nn.functional.pad(rows_RI, (0, short))
    grouped: Tensor = filled.unflatten(1, (-1, group_size))
    return grouped


def _line(
    values_RGC: Tensor, weight_1GC: Tensor, minimum_RG: Tensor, scale_RG: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(scale, minimum, what is left of Σ weight · (value - rounded)²) of the line that fits the numbers best which this
    scale and minimum give; infinite where a line cannot be told from them.
    """
    inverse = torch.where(scale_RG > 0, 1 / scale_RG, 0.0)
    numbers = (values_RGC - minimum_RG[..., None]).mul_(inverse[..., None]).round_().clamp_(0, 15)
    weighted = numbers * weight_1GC
    total, n, nn = weight_1GC.sum(2), weighted.sum(2), (weighted * numbers).sum(2)
    nv, weighted = weighted.mul_(values_RGC).sum(2), values_RGC * weight_1GC
    v, vv = weighted.sum(2), weighted.mul_(values_RGC).sum(2)
    determinant = total * nn - n * n
    usable = determinant > 1e-6 * total * nn
    scale = (total * nv - n * v) / determinant.where(usable, 1.0)
    minimum = (v - scale * n) / total.clamp_min(1e-30)
    error = vv - scale * nv - minimum * v
    return scale, minimum, error.where(usable & (scale > 0), torch.inf)


def _divided(values: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale > 0, values / scale.clamp_min(1e-30), 0.0)
