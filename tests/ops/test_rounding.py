"""Quantising at load: rounding to nearest, groups of columns, and against the gguf package's own encoder."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_pio.errors import UsageError
from inference_pio.loader.dequantize import dequantize
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.ops.rounding import quantize_rows
from inference_pio.plugin.quantization import Quantization
from requantize import encode
from support.packed_gguf import decode

KINDS = ("Q8_0", "Q4_1")
STEPS = {"Q8_0": 127, "Q4_1": 15}
HALF = 2.0**-11  # relative rounding of a scale to 16 bits


def back(rows: Tensor, kind: str, group_size: int) -> Tensor:
    data = quantize_rows(rows, kind, group_size)
    stored = TYPES_BY_NAME[kind]
    assert data.dtype == torch.uint8
    assert data.shape == (rows.shape[0], stored.nbytes(rows.shape[1]))
    return dequantize(data.reshape(-1, stored.block_bytes), kind).view(rows.shape)


def half_a_step(rows: Tensor, kind: str, group_size: int) -> Tensor:
    """What rounding may change in each value: half a step of its group, and what 16-bit scales add to it."""
    bounds = []
    for group in rows.split(group_size, dim=1):
        low, high = group.amin(1, keepdim=True), group.amax(1, keepdim=True)
        if kind == "Q8_0":
            size = torch.maximum(-low, high)
            bound = size / 127 / 2 + HALF * size
        else:
            bound = (high - low) / 15 / 2 + HALF * (high - low + low.abs())
        bounds.append(bound.expand_as(group))
    return torch.cat(bounds, dim=1) * (1 + 1e-5) + 1e-7


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 20),
    blocks=st.integers(1, 9),
    group_size=st.sampled_from([32, 64, 128]),
    shift=st.sampled_from([0.0, 0.5, -3.0]),
    seed=st.integers(0, 999),
)
def test_no_value_moves_more_than_half_a_step(
    kind: str, rows: int, blocks: int, group_size: int, shift: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 32 * blocks, generator=rng) * torch.rand(rows, 1, generator=rng) + shift
    bound = half_a_step(values, kind, group_size)
    assert ((back(values, kind, group_size) - values).abs() <= bound).all()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_32_are_as_good_as_those_of_the_gguf_package(kind: str) -> None:
    values = torch.randn(64, 512, generator=torch.Generator().manual_seed(1)) * 0.02
    ours = (back(values, kind, 32) - values).square().mean()
    theirs = (decode(encode(values.numpy(), kind), kind) - values).square().mean()
    assert ours <= theirs * 1.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("group_size", "columns"), [(32, 96), (64, 160), (128, 384), (128, 96), (128, 32)])
def test_a_group_shares_its_scale_and_a_short_one_stands_alone(
    kind: str, group_size: int, columns: int
) -> None:
    values = torch.randn(5, columns, generator=torch.Generator().manual_seed(2))
    data = quantize_rows(values, kind, group_size)
    stored = TYPES_BY_NAME[kind]
    head = stored.block_bytes - {"Q8_0": 32, "Q4_1": 16}[kind]
    scales = data.view(5, -1, stored.block_bytes)[:, :, :head]
    groups = scales.split(group_size // 32, dim=1)
    assert len(groups) == -(-columns // group_size)
    for group in groups:
        assert torch.equal(group, group[:, :1].expand_as(group))
    for first, second in pairwise(groups):
        assert not torch.equal(first[:, 0], second[:, 0])
    # What a group becomes depends on nothing beside it.
    alone = torch.cat([quantize_rows(part, kind, group_size) for part in values.split(group_size, 1)], dim=1)
    assert torch.equal(data, alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.75, 3.0e-5])
def test_rows_of_one_value_keep_it(kind: str, value: float) -> None:
    found = back(torch.full((3, 64), value), kind, 64)
    assert (found - value).abs().max() <= abs(value) * 2 * HALF + 2.0**-25 * STEPS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_weight_is_quantised_piece_by_piece_to_the_same_blocks(kind: str) -> None:
    values = torch.randn(1100, 1024, generator=torch.Generator().manual_seed(3))  # more than a piece
    whole = quantize_rows(values, kind, 64)
    assert torch.equal(whole, torch.cat([quantize_rows(part, kind, 64) for part in values.split(100)]))


@pytest.mark.parametrize("asked", ["int8", "int4"])
def test_the_words_of_the_option(asked: str) -> None:
    kind = {"int8": "Q8_0", "int4": "Q4_1"}[asked]
    assert Quantization.parse(asked) == Quantization(kind, 32)
    for size in (32, 64, 128):
        assert Quantization.parse(f"{asked}:{size}") == Quantization(kind, size)


@pytest.mark.parametrize(
    "asked",
    ["", "int", "INT8", "int2", "fp8", "int8:", "int4:0", "int4:16", "int4:48", "int4:256", "int8:x", "int8:-32",
     "int4:64:32", ":64", "int4 :64", "int4:６４", "Q4_1"],
)  # fmt: skip
def test_other_words_are_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="quantize must be int8 or int4, with :32, :64 or :128") as refused:
        Quantization.parse(asked)
    assert repr(asked) in str(refused.value)
