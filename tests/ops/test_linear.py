"""Packed weights give torch's products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from inference_pio import ops
from inference_pio.ops.linear import few_shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_is_the_product_in_float64(dtype, rows, biased):
    x, weight = torch.randn(rows, 72).to(dtype), torch.randn(50, 72).to(dtype)
    bias = torch.randn(50).to(dtype) if biased else None
    got = ops.linear(x, ops.pack_weight(weight), bias)
    want = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert got.dtype == dtype
    # One rounding of the result, of at most half a step, and what float32 sums of 72 terms lose.
    torch.testing.assert_close(got.double(), want, rtol=torch.finfo(dtype).eps, atol=1e-4)


def test_a_packed_weight_knows_its_size_and_keeps_one_copy():
    weight = torch.randn(50, 72)
    packed = ops.pack_weight(weight)
    assert (packed.out_features, packed.in_features, packed.nbytes) == (50, 72, 50 * 72 * 4)
    assert packed.tensor.data_ptr() == weight.data_ptr()
    assert ops.pack_weight(weight.bfloat16()).nbytes == 50 * 72 * 2


def test_products_of_bfloat16_have_few_sizes():
    rows = {length: few_shapes(torch.ones(length, 3, dtype=torch.bfloat16)) for length in range(1, 513)}
    assert len({len(x) for x in rows.values()}) == 32
    for length, x in rows.items():
        assert length <= len(x) <= length * 5 / 4
        assert x[:length].eq(1).all()
        assert x[length:].eq(0).all()
    x32 = torch.ones(7, 3)
    assert few_shapes(x32) is x32
