"""Rounding by what a weight is multiplied by: against the method's definition, and by its effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inference_pio.ops.gptq import Compensation, add_moments, compensated_rows
from inference_pio.ops.rounding import Grid, quantize_rows
from support.packed_gguf import decode

KINDS = ("Q4_1", "Q8_0")


def _inputs(tokens: int, columns: int, seed: int = 0) -> Tensor:
    """Correlated, of different sizes, as those of a model are."""
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, columns // 4, generator=rng) @ torch.randn(
        columns // 4, columns, generator=rng
    )
    own = torch.randn(tokens, columns, generator=rng)
    return (mixed / (columns // 4) ** 0.5 + 0.3 * own) * torch.randn(columns, generator=rng).exp()


def _moments(x_TI: Tensor) -> Tensor:
    moments = torch.zeros(x_TI.shape[1], x_TI.shape[1])
    add_moments(moments, x_TI)
    return moments / len(x_TI)


def _weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)) * 0.02


def _lost(data: Tensor, kind: str, weight: Tensor, x_TI: Tensor) -> float:
    """‖(W - Ŵ) X‖², decoded as the gguf package decodes."""
    return ((decode(data, kind) - weight) @ x_TI.T).square().sum().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group_size", [32, 128])
def test_products_change_by_less_than_a_quarter_of_what_rounding_to_nearest_changes(
    kind: str, group_size: int
) -> None:
    x_TI, unseen = _inputs(3000, 256).split(1500)
    weight = _weight(48, 256)
    how = Compensation.of(_moments(x_TI))
    nearest, ours = quantize_rows(weight, kind, group_size), compensated_rows(weight, how, kind, group_size)
    assert _lost(ours, kind, weight, x_TI) < 0.25 * _lost(nearest, kind, weight, x_TI)
    assert _lost(ours, kind, weight, unseen) < 0.25 * _lost(nearest, kind, weight, unseen)
    # It is the compensation that does it: without, the same scales leave more than twice as much.
    without = compensated_rows(weight, replace(how, factor=torch.eye(256)), kind, group_size)
    assert _lost(ours, kind, weight, x_TI) < 0.5 * _lost(without, kind, weight, x_TI)


def test_numbers_are_those_of_the_definition() -> None:
    """Optimal Brain Quantisation of one column after the other (Frantar et al. 2022, section 3.1, eq. 2): the inverse
    Hessian of the columns that are left, found anew for each of them, in double precision.
    """
    columns, group_size = 160, 64
    x_TI, weight = _inputs(600, columns), _weight(5, columns)
    moments = _moments(x_TI)
    how = Compensation.of(moments)
    grid = Grid.fitted(weight, "Q4_1", group_size, moments.diagonal())
    scale, low = (
        part.double().repeat_interleave(group_size, 1)[:, :columns] for part in (grid.scale, grid.minimum)
    )
    damped = moments.double() + 0.01 * moments.diagonal().double().mean() * torch.eye(columns)
    left, expected = weight.double().clone(), torch.empty(5, columns, dtype=torch.float64)
    rest = moments.diagonal().argsort(descending=True, stable=True).tolist()
    assert rest == how.order.tolist()
    while rest:
        column = rest[0]
        inverse = damped[rest][:, rest].inverse()
        number = ((left[:, column] - low[:, column]) / scale[:, column]).round().clamp(0, 15)
        expected[:, column] = low[:, column] + scale[:, column] * number
        error = (left[:, column] - expected[:, column]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]
        rest = rest[1:]
    found = decode(compensated_rows(weight, how, "Q4_1", group_size), "Q4_1").double()
    # A value that lies between two numbers may fall to either side, and takes later columns of its row along.
    same = ((found - expected).abs() < 1e-6).double().mean()
    assert same > 0.97
    lost = [
        ((values - weight.double()) @ x_TI.double().T).square().sum().item() for values in (found, expected)
    ]
    assert lost[0] == pytest.approx(lost[1], rel=0.05)


def test_the_factor_is_that_of_the_inverse() -> None:
    moments = _moments(_inputs(500, 96))
    how = Compensation.of(moments)
    ordered = moments[how.order][:, how.order].double()
    damped = ordered + 0.01 * ordered.diagonal().mean() * torch.eye(96)
    assert torch.equal(how.factor, how.factor.triu())
    expected = damped.inverse()
    found = (how.factor.T @ how.factor).double()
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_uncorrelated_inputs_leave_the_nearest_numbers(kind: str) -> None:
    weight = _weight(9, 128)
    how = Compensation.of(torch.diag(torch.rand(128, generator=torch.Generator().manual_seed(2)) + 0.1))
    grid = Grid.fitted(weight, kind, 32, how.importance)
    assert torch.equal(compensated_rows(weight, how, kind, 32), grid.blocks(grid.nearest(weight)))


def test_channels_that_are_always_zero_are_rounded_to_nearest() -> None:
    x_TI, weight = _inputs(600, 128), _weight(16, 128)
    x_TI[:, 40:70] = 0
    how = Compensation.of(_moments(x_TI))
    found = decode(compensated_rows(weight, how, "Q4_1", 128), "Q4_1")
    grid = Grid.fitted(weight, "Q4_1", 128, how.importance)
    nearest = decode(grid.blocks(grid.nearest(weight)), "Q4_1")
    assert torch.equal(found[:, 40:70], nearest[:, 40:70])
    assert found.isfinite().all()


def test_fewer_inputs_than_channels_are_enough_for_finite_numbers() -> None:
    x_TI, weight = _inputs(20, 256), _weight(16, 256)
    data = compensated_rows(weight, Compensation.of(_moments(x_TI)), "Q4_1", 64)
    assert _lost(data, "Q4_1", weight, x_TI) < 0.25 * _lost(
        quantize_rows(weight, "Q4_1", 64), "Q4_1", weight, x_TI
    )


def test_important_columns_draw_the_scale() -> None:
    """One column far out, which its input never uses, does not cost the others their precision."""
    weight, importance = _weight(8, 32), torch.ones(32)
    weight[:, 5], importance[5] = 0.5, 0.0
    rest = [column for column in range(32) if column != 5]

    def lost(grid: Grid) -> float:
        return (decode(grid.blocks(grid.nearest(weight)), "Q4_1") - weight)[:, rest].square().sum().item()

    assert lost(Grid.fitted(weight, "Q4_1", 32, importance)) < 0.8 * lost(Grid.spanning(weight, "Q4_1", 32))


@pytest.mark.parametrize("columns", [96, 160, 384])
def test_a_group_shares_its_scale(columns: int) -> None:
    how = Compensation.of(_moments(_inputs(500, columns)))
    data = compensated_rows(_weight(5, columns), how, "Q4_1", 128)
    heads = data.view(5, -1, 20)[:, :, :4]
    for group in heads.split(4, dim=1):
        assert torch.equal(group, group[:, :1].expand_as(group))
