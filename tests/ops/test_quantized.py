"""Packed blocks: reading back and products, against the loader's decoding and float64, on every instruction set."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_pio import ops
from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.ops.quantized import quantized_gated_linear
from support.quant_blocks import KINDS, blocks_of, dequantized, random_blocks, random_bytes

pytestmark = pytest.mark.usefixtures("isa")
some = settings(max_examples=10, deadline=None)
every_kind = pytest.mark.parametrize("kind", KINDS)
WITH_16_BIT_MINIMA = ("Q4_1", "Q5_1")
GROUP = 64  # activations that share a scale


def columns_of(kind: str, count: int) -> int:
    """`count` of the smallest rows that the kind allows, one after the other."""
    return count * TYPES_BY_NAME[kind].block_size


def activations(tokens: int, columns: int, seed: int = 0) -> Tensor:
    """Normal, with an outlier here and there as models have them, and none that two ways to round would differ on."""
    rng = torch.Generator().manual_seed(seed)
    x_TK = torch.randn(tokens, columns, generator=rng)
    x_TK = torch.where(torch.rand(x_TK.shape, generator=rng) < 0.01, 20 * x_TK, x_TK)
    steps = x_TK.double() / step_of(x_TK)
    return torch.where((steps.frac().abs() - 0.5).abs() < 1e-3, 0.0, x_TK)


def step_of(x_TK: Tensor) -> Tensor:
    """float64 [T, K]: a 127th of the largest magnitude of each group of columns."""
    groups = [group.abs().amax(dim=1, keepdim=True).expand_as(group) for group in x_TK.split(GROUP, dim=1)]
    return torch.cat(groups, dim=1).double() / 127


def rounded(x_TK: Tensor) -> Tensor:
    """float64 [T, K]: whole steps."""
    return (x_TK.double() / step_of(x_TK)).round() * step_of(x_TK)


def assert_is_product(got: Tensor, x_TK: Tensor, weight_OK: Tensor, bias: Tensor | None = None) -> None:
    """To 1e-5 of what is added up: sums of float32 lose a little per term."""
    x, weight = rounded(x_TK), weight_OK.double()
    want = x @ weight.T
    size = x.norm(dim=1, keepdim=True) * weight.norm(dim=1)
    if bias is not None:
        want, size = want + bias.double(), size + bias.abs()
    assert got.dtype == x_TK.dtype
    assert got.shape == want.shape
    assert ((got.double() - want).abs() <= 1e-5 * size + 1e-30).all()


# Reading back -------------------------------------------------------------------------------------------------------


@every_kind
@some
@given(rows=st.integers(1, 70), count=st.integers(1, 19), seed=st.integers(0, 999))
def test_rows_come_back_as_the_loader_decodes_them(kind: str, rows: int, count: int, seed: int) -> None:
    blocks = random_blocks(kind, rows, columns_of(kind, count), seed)
    weight = ops.pack_quantized([blocks])
    assert weight.nbytes == ops.packed_bytes(kind, rows, blocks.columns)
    assert (weight.out_features, weight.in_features) == (rows, blocks.columns)
    want = dequantized(blocks)
    ids = torch.randint(0, rows, (2 * rows,), generator=torch.Generator().manual_seed(seed))
    for got, wanted in ((weight.dequantize(), want), (ops.quantized_embedding(ids, weight), want[ids])):
        assert_reads(kind, got, wanted, blocks.data if wanted is want else blocks.data[ids])
    assert torch.equal(
        ops.quantized_embedding(ids, weight, 25.3), ops.quantized_embedding(ids, weight) * 25.3
    )


def assert_reads(kind: str, got: Tensor, want: Tensor, data: Tensor) -> None:
    if kind not in WITH_16_BIT_MINIMA:
        assert torch.equal(got.view(torch.int32), want.view(torch.int32)), "bit for bit"
        return
    stored = TYPES_BY_NAME[kind].block_bytes
    minima = data.view(data.shape[0], -1, stored)[:, :, 2:4].contiguous().view(torch.float16).float()
    # Half a step of the minimum, and the rounding of both.
    bound = minima.abs().amax(dim=(1, 2))[:, None] * (2.0**-16 + 2.0**-22) + want.abs() * 2.0**-22
    assert ((got - want).abs() <= bound).all()


def test_every_byte_of_numbers_and_scales() -> None:
    """Whatever bytes a block of each kind may hold, halves aside, one by one."""
    for kind in KINDS:
        stored = TYPES_BY_NAME[kind]
        template = random_bytes(kind, 1, stored.block_size, seed=2)
        for at in range(stored.block_bytes):
            row = template.expand(256, -1).clone()
            row[:, at] = torch.arange(256, dtype=torch.uint8)
            blocks = blocks_of(kind, row, stored.block_size)
            want, got = dequantized(blocks), ops.pack_quantized([blocks]).dequantize()
            finite = want.isfinite().all(dim=1)
            assert finite.sum() >= 240
            assert_reads(kind, got[finite], want[finite], row[finite])


# Products -----------------------------------------------------------------------------------------------------------


@every_kind
@some
@given(
    rows=st.integers(1, 70),
    count=st.integers(1, 6),
    tokens=st.integers(1, 40),
    biased=st.booleans(),
    seed=st.integers(0, 999),
)
def test_products(kind: str, rows: int, count: int, tokens: int, biased: bool, seed: int) -> None:
    weight = ops.pack_quantized([random_blocks(kind, rows, columns_of(kind, count), seed)])
    x_TK = activations(tokens, weight.in_features, seed)
    bias = torch.randn(rows, generator=torch.Generator().manual_seed(seed)) if biased else None
    assert_is_product(ops.linear(x_TK, weight, bias), x_TK, weight.dequantize(), bias)


@pytest.mark.parametrize("columns", [32, 96, 544, 1024, 1056, 2080])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if TYPES_BY_NAME[kind].block_size == 32])
def test_widths_that_end_within_a_group_of_activations_or_a_panel(kind: str, columns: int) -> None:
    weight = ops.pack_quantized([random_blocks(kind, 35, columns)])
    for tokens in (1, 2, 7):
        x_TK = activations(tokens, columns)
        assert_is_product(ops.linear(x_TK, weight), x_TK, weight.dequantize())


@pytest.mark.parametrize("columns", [256, 768, 1280, 2304])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if TYPES_BY_NAME[kind].block_size == 256])
def test_widths_of_whole_supers(kind: str, columns: int) -> None:
    weight = ops.pack_quantized([random_blocks(kind, 35, columns)])
    for tokens in (1, 2, 7):
        x_TK = activations(tokens, columns)
        assert_is_product(ops.linear(x_TK, weight), x_TK, weight.dequantize())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_are_multiplied_in_float32(dtype: torch.dtype) -> None:
    weight = ops.pack_quantized([random_blocks("Q4_K", 40, 256)])
    x_TK = activations(5, 256).to(dtype)
    assert torch.equal(ops.linear(x_TK, weight), ops.linear(x_TK.float(), weight).to(dtype))


def test_one_weight_of_several_kinds() -> None:
    """Pieces of 20, 7, 33 and 64 rows: the borders lie within groups of 16 and of 32."""
    pieces = [
        random_blocks(kind, rows, 512, seed=rows)
        for kind, rows in (("Q4_K", 20), ("Q6_K", 7), ("Q4_1", 33), ("IQ2_XXS", 64))
    ]
    weight, bias = ops.pack_quantized(pieces), torch.randn(124)
    assert weight.kinds == ("Q4_K", "Q6_K", "Q4_1", "IQ2_XXS")
    assert weight.nbytes == sum(ops.packed_bytes(p.kind, p.data.shape[0], 512) for p in pieces)
    alone = [ops.pack_quantized([piece]) for piece in pieces]
    assert torch.equal(weight.dequantize(), torch.cat([part.dequantize() for part in alone]))
    for tokens in (1, 3, 40):
        x_TK = activations(tokens, 512)
        got = ops.linear(x_TK, weight, bias)
        assert_is_product(got, x_TK, weight.dequantize(), bias)
        assert torch.equal(
            ops.linear(x_TK, weight), torch.cat([ops.linear(x_TK, part) for part in alone], dim=1)
        )


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@every_kind
def test_gate_and_up_in_one_pass_are_the_two_steps(kind: str, activation: ops.Activation) -> None:
    """Rows of both halves that end within a group, with a bias and without; alone and in company."""
    columns = columns_of(kind, 3)
    weight = ops.pack_quantized([random_blocks(kind, 23, columns, seed) for seed in (1, 2)])
    assert weight.halves_match
    x_TK, bias = activations(21, columns), torch.randn(46)
    for added in (None, bias):
        got = ops.gated_linear(x_TK, weight, added, activation)
        two_steps = getattr(ops, f"{activation}_and_mul")(ops.linear(x_TK, weight, added))
        torch.testing.assert_close(got, two_steps, rtol=1e-6, atol=1e-6)
        alone = [ops.gated_linear(row, weight, added, activation) for row in x_TK.split(1)]
        assert torch.equal(got, torch.cat(alone))
        with ops.use("reference"):
            exact = ops.gated_linear(x_TK, weight, added, activation)
        assert (got - exact).norm() <= 0.05 * exact.norm(), "activations have 8 bits"


@pytest.mark.parametrize("second", [("Q4_0", 32), ("Q8_0", 23)])
def test_halves_that_differ_take_two_steps(second: tuple[str, int]) -> None:
    weight = ops.pack_quantized([random_blocks("Q8_0", 32, 256), random_blocks(*second, 256)])
    if second[1] == 32:
        x_TK = activations(3, 256)
        got = ops.gated_linear(x_TK, weight)
        assert torch.equal(got, ops.silu_and_mul(ops.linear(x_TK, weight)))
    assert not weight.halves_match
    with pytest.raises(RuntimeError, match="gate and up are two parts of one kind and size"):
        quantized_gated_linear(activations(3, 256), weight, None)


def test_the_reference_multiplies_without_rounding() -> None:
    weight, x_TK = ops.pack_quantized([random_blocks("Q5_K", 40, 256)]), activations(5, 256)
    with ops.use("reference"):
        got = ops.linear(x_TK, weight)
    want = x_TK.double() @ weight.dequantize().double().T
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


# Company ------------------------------------------------------------------------------------------------------------


@every_kind
def test_a_row_is_the_same_in_any_company(kind: str) -> None:
    weight = ops.pack_quantized([random_blocks(kind, 50, columns_of(kind, 5))])
    x_TK = activations(37, weight.in_features)
    whole = ops.linear(x_TK, weight)
    for first, last in ((0, 1), (36, 37), (5, 7), (5, 8), (1, 37), (9, 30)):
        assert torch.equal(ops.linear(x_TK[first:last], weight), whole[first:last])


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K"])
def test_a_row_is_the_same_however_the_work_is_cut(kind: str) -> None:
    """More tokens than are multiplied together at this width, and any number of threads."""
    weight = ops.pack_quantized([random_blocks(kind, 70, 8192)])
    x_TK = activations(70, 8192)
    whole = ops.linear(x_TK, weight)
    assert torch.equal(whole, torch.cat([ops.linear(row, weight) for row in x_TK.split(1)]))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            assert torch.equal(ops.linear(x_TK, weight), whole)
            assert torch.equal(ops.linear(x_TK[:1], weight), whole[:1])
    finally:
        torch.set_num_threads(before)


# Numbers out of the ordinary ------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_its_own_row_only(kind: str, bad: float) -> None:
    weight = ops.pack_quantized([random_blocks(kind, 20, columns_of(kind, 3))])
    x_TK = activations(6, weight.in_features)
    clean = ops.linear(x_TK, weight)
    x_TK[3, 17] = bad
    got = ops.linear(x_TK, weight)
    assert got[3].isnan().all()
    assert ops.linear(x_TK[3:4], weight).isnan().all()
    others = [0, 1, 2, 4, 5]
    assert torch.equal(got[others], clean[others])


@every_kind
def test_a_row_of_zeros_gives_zeros(kind: str) -> None:
    weight = ops.pack_quantized([random_blocks(kind, 20, columns_of(kind, 3))])
    x_TK = activations(3, weight.in_features)
    x_TK[1] = 0.0
    assert not ops.linear(x_TK, weight)[1].any()
    assert not ops.linear(torch.zeros(1, weight.in_features), weight).any()


def test_the_smallest_numbers_there_are_give_next_to_nothing() -> None:
    weight = ops.pack_quantized([random_blocks("Q4_0", 20, 128)])
    for size in (1e-38, 1e-40, 1e-45):
        got = ops.linear(size * activations(3, 128), weight)
        assert got.isfinite().all()
        assert got.abs().max() < 1e-33


@pytest.mark.parametrize("kind", WITH_16_BIT_MINIMA)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_minimum_that_is_not_finite_shows_in_its_weight_row_only(kind: str, bad: float) -> None:
    data = random_bytes(kind, 20, 128)
    clean = ops.pack_quantized([blocks_of(kind, data.clone(), 128)])
    data[4, 2:4] = torch.tensor([bad], dtype=torch.float16).view(torch.uint8)
    weight = ops.pack_quantized([blocks_of(kind, data, 128)])
    x_TK = activations(3, 128)
    others = [row for row in range(20) if row != 4]
    got = ops.linear(x_TK, weight)
    assert not got[:, 4].isfinite().any()
    assert not weight.dequantize()[4].isfinite().any()
    assert torch.equal(got[:, others], ops.linear(x_TK, clean)[:, others])


@every_kind
def test_no_tokens(kind: str) -> None:
    weight = ops.pack_quantized([random_blocks(kind, 20, 256)])
    assert ops.linear(torch.empty(0, 256), weight).shape == (0, 20)
    assert ops.quantized_embedding(torch.empty(0, dtype=torch.int64), weight).shape == (0, 256)


# Refusals -----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_in_words() -> None:
    weight = ops.pack_quantized([random_blocks("Q4_0", 20, 128)])
    for x, words in (
        (torch.zeros(2, 96), "packed has 2304 bytes, expected 1728"),
        (torch.zeros(2, 100), "x has 100 columns, expected a multiple of 32"),
        (torch.zeros(2, 0), "x has 0 columns, expected a multiple of 32"),
        (torch.zeros(128), "x has 1 dimensions, expected 2"),
    ):
        with pytest.raises(RuntimeError, match=words):
            ops.linear(x, weight)
    with pytest.raises(RuntimeError, match="bias has size 19 in dimension 0, expected 20"):
        ops.linear(torch.zeros(2, 128), weight, torch.zeros(19))
    with pytest.raises(RuntimeError, match="100 columns are not a multiple of 32"):
        ops.pack_quantized([ops.Blocks("Q4_0", torch.zeros(3, 54, dtype=torch.uint8), 100)])
    with pytest.raises(RuntimeError, match="128 columns are not a multiple of 256"):
        ops.pack_quantized([ops.Blocks("Q4_K", torch.zeros(3, 72, dtype=torch.uint8), 128)])
    with pytest.raises(RuntimeError, match="blocks has size 71 in dimension 1, expected 72"):
        ops.pack_quantized([ops.Blocks("Q4_0", torch.zeros(3, 71, dtype=torch.uint8), 128)])
    with pytest.raises(RuntimeError, match=r"codebook is \[256, 8\] for IQ2_XXS"):
        ops.pack_quantized([ops.Blocks("IQ2_XXS", torch.zeros(3, 66, dtype=torch.uint8), 256)])


@pytest.mark.parametrize("bad", [-1, 20, 2**40])
def test_a_token_that_there_is_not_is_refused(bad: int) -> None:
    weight = ops.pack_quantized([random_blocks("Q4_0", 20, 128)])
    with pytest.raises(RuntimeError, match=rf"token_ids\[1\] is {bad}, expected 0 to 19"):
        ops.quantized_embedding(torch.tensor([3, bad]), weight)


def test_an_embedding_of_several_kinds_is_refused() -> None:
    weight = ops.pack_quantized([random_blocks("Q4_0", 20, 128), random_blocks("Q8_0", 20, 128)])
    with pytest.raises(RuntimeError, match="an embedding has one part, not 2"):
        ops.quantized_embedding(torch.tensor([3]), weight)


def test_only_kinds_that_the_kernels_know_can_be_packed() -> None:
    assert all(ops.can_pack(kind) for kind in KINDS)
    assert not any(ops.can_pack(kind) for kind in ("F32", "BF16", "F16", "I8", "MXFP4"))
