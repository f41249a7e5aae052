"""Rounding that knows what a weight is multiplied by: GPTQ (Frantar et al. 2022).

Rounding a column of W changes W x; the columns that are not rounded yet can make up for it, as far as inputs are
correlated. With H = X Xᵀ over the inputs of a calibration text, and U the upper triangular matrix with H⁻¹ = Uᵀ U, a
column's error e = (w - rounded) / U[i, i] is taken from each later column j as e · U[i, j] (algorithm 1 there).
Columns go in the order of falling H[i, i] ("act-order"), while each keeps the scale of the group in which it lies: so
the blocks are those of any other rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inference_pio.ops.rounding import Grid, rows_at_once

_DAMPING = 0.01  # of the mean of H's diagonal, as in the paper
_STEP = 128  # columns whose errors are gathered before the later ones are told
_PIECE = 4096  # rows of X at once


@dataclass(frozen=True)
class Compensation:
    """What the inputs [T, I] of a weight say about rounding it.

    order       int64 [I]: the columns in the order in which they are rounded
    factor      float32 [I, I]: U, in this order
    importance  float32 [I]: mean squares of the inputs, by column
    """

    order: Tensor
    factor: Tensor
    importance: Tensor

    @classmethod
    def of(cls, moments_II: Tensor) -> Compensation:
        """From the mean of x xᵀ over the inputs, float32 and finite. Channels that were always zero are rounded to
        nearest.
        """
        diagonal = moments_II.diagonal().clone()
        order = diagonal.argsort(descending=True, stable=True)
        ordered = moments_II[order][:, order]
        silent = ordered.diagonal() <= 0
        ordered.diagonal()[silent] = max(float(diagonal.mean()), 1.0)
        return cls(order, _factor(ordered, _DAMPING * float(ordered.diagonal().mean())), diagonal)


def add_moments(moments_II: Tensor, x_TI: Tensor) -> None:
    """Σ x xᵀ over rows, added in float32."""
    for rows in x_TI.split(_PIECE):
        part = rows.float()
        moments_II.addmm_(part.T, part)


def compensated_rows(weight_OI: Tensor, how: Compensation, kind: str, group_size: int) -> Tensor:
    """float32 [O, I] → uint8 [O, bytes of a row], in blocks as `quantize_rows` makes them. Rows do not know each other.

    The scales of a group are those that fit its weights best, where inputs that are large count more.
    """
    parts = []
    for rows in weight_OI.split(4 * rows_at_once(weight_OI.shape[1])):
        grid = _grid(rows, how, kind, group_size)
        parts.append(grid.blocks(_numbers(rows, how, grid)))
    return torch.cat(parts)


def _grid(rows_RI: Tensor, how: Compensation, kind: str, group_size: int) -> Grid:
    pieces = [
        Grid.fitted(piece, kind, group_size, how.importance)
        for piece in rows_RI.split(rows_at_once(rows_RI.shape[1]))
    ]
    scale = torch.cat([piece.scale for piece in pieces])
    minima = [piece.minimum for piece in pieces if piece.minimum is not None]
    return Grid(scale, torch.cat(minima) if minima else None, group_size)


def _numbers(rows_RI: Tensor, how: Compensation, grid: Grid) -> Tensor:
    """float32 [R, I]: what the columns are rounded to, one after the other."""
    left_IR = rows_RI[:, how.order].T.contiguous()
    numbers_IR = torch.empty_like(left_IR)
    columns = how.order.tolist()
    for first in range(0, len(columns), _STEP):
        part = slice(first, first + _STEP)
        factor, left = how.factor[part, part], left_IR[part]
        errors = torch.empty_like(left)
        for index, column in enumerate(columns[part]):
            scale, minimum = grid.column(column)
            number = grid.number_of(left[index], scale, minimum)
            rounded = number * scale if minimum is None else torch.addcmul(minimum, number, scale)
            error = torch.sub(left[index], rounded, out=errors[index]).div_(factor[index, index])
            left[index + 1 :].addr_(factor[index, index + 1 :], error, alpha=-1)
            numbers_IR[first + index] = number
        left_IR[first + _STEP :].addmm_(how.factor[part, first + _STEP :].T, errors, alpha=-1)
    result = torch.empty_like(rows_RI)
    result[:, how.order] = numbers_IR.T
    return result


def _factor(moments_II: Tensor, damping: float) -> Tensor:
    """U, upper triangular, with (moments + damping)⁻¹ = Uᵀ U: of the matrix turned about, L Lᵀ, it is L⁻¹ turned about.

    Where rounding leaves the matrix not positive, more is added to its diagonal.
    """
    turned = moments_II.flip(0, 1)
    while True:
        turned.diagonal().add_(damping)
        lower, failed = torch.linalg.cholesky_ex(turned)
        if not failed:
            break
        damping *= 10
    identity = torch.eye(len(turned), dtype=turned.dtype)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(0, 1).contiguous()
