"""Native norm, activation and rotation against the reference, on every instruction set of this processor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio import ops

pytestmark = pytest.mark.usefixtures("isa")
# bfloat16 numbers are up to 2^-7 of themselves apart, and two roundings may fall to the other side.
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2 * 2.0**-7}
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
some = settings(max_examples=12, deadline=None)


def agree(run, dtype, size=1e-2):
    """`size` is that of numbers whose errors count as much as their own size."""
    got = run()
    with ops.use("reference"):
        want = run()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=BOUND[dtype], atol=BOUND[dtype] * size)


@some
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 300),
    dtype=dtypes,
    offset=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 999),
)
def test_norms_and_activation(rows, width, dtype, offset, seed):
    rng = torch.Generator().manual_seed(seed)
    x, residual = (torch.randn(rows, width, generator=rng).to(dtype) for _ in range(2))
    weight = torch.randn(width, generator=rng).to(dtype)
    agree(lambda: [ops.rms_norm(x, weight, 1e-5, offset)], dtype)
    agree(lambda: ops.add_rms_norm(x, residual.clone(), weight, 1e-5, offset), dtype)
    agree(lambda: [ops.silu_and_mul(torch.cat((x * 8, residual), dim=1))], dtype)
    # torch loses its own digits where 1 + tanh is next to nothing.
    agree(lambda: [ops.gelu_tanh_and_mul(torch.cat((x * 4, residual), dim=1))], dtype, size=1.0)


@some
@given(
    tokens=st.integers(1, 40),
    half=st.integers(1, 70),
    heads=st.sampled_from([(4, 4), (9, 3), (5, 1)]),
    block_size=st.sampled_from([8, 16, 64]),
    dtypes=st.sampled_from(
        [
            (torch.float32, torch.float32),
            (torch.float32, torch.bfloat16),
            (torch.bfloat16, torch.bfloat16),
        ]
    ),
    still=st.sampled_from([0, 1, 17, 40]),
    offset=st.sampled_from([None, 0.0, 1.0]),
)
def test_rope_and_cache(tokens, half, heads, block_size, dtypes, still, offset):
    """`still` pairs of a head are not turned; `offset` is that of norms of heads, or there are none."""
    dtype, cache_dtype = dtypes
    rng = torch.Generator().manual_seed(half)
    num_heads, num_kv_heads = heads
    size = 2 * (half + still)
    qkv = torch.randn(tokens, (num_heads + 2 * num_kv_heads) * size, generator=rng).to(dtype)
    weights = torch.randn(2, size, generator=rng).to(dtype)
    norms = None if offset is None else ops.HeadNorms(*weights, 1e-6, offset)
    angles = torch.randn(50, half, generator=rng)
    table = torch.cat((angles.cos(), angles.sin()), dim=1)
    positions = torch.randint(0, 50, (tokens,), generator=rng)
    slots = torch.randperm(6 * block_size, generator=rng)[:tokens]

    def run():
        caches = [torch.full((6, num_kv_heads, block_size, size), 7, dtype=cache_dtype) for _ in range(2)]
        where = (positions, table, *caches, slots, num_heads, num_kv_heads)
        return [ops.rope_and_cache(qkv, *where, norms=norms), *caches]

    # A turned value is a difference of two, whose errors it has.
    agree(run, cache_dtype, size=1.0 if norms else 1e-2)


@some
@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 700),
    dtype=dtypes,
    levels=st.integers(1, 40),
    seed=st.integers(0, 999),
)
def test_the_largest_of_a_row_is_found_in_its_first_place(rows, width, dtype, levels, seed):
    """Few levels make many equal values; some of them are NaN or infinite."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(-levels, levels, (rows, width), generator=rng).to(dtype)
    odd = torch.rand(rows, width, generator=rng)
    x[odd < 0.01] = float("-inf")
    x[(odd > 0.998) & (torch.arange(rows) % 2 == 0)[:, None]] = float("nan")
    values, places = ops.row_max(x)
    want = x.max(dim=1).values
    assert values.dtype == dtype
    torch.testing.assert_close(values, want, rtol=0, atol=0, equal_nan=True)
    for row in range(rows):
        same = x[row].isnan() if want[row].isnan() else x[row] == want[row]
        assert places[row] == same.nonzero()[0, 0]


def test_the_largest_of_rows_of_nothing_else():
    for value in (float("-inf"), float("inf"), float("nan"), -0.0):
        values, places = ops.row_max(torch.full((3, 100), value))
        assert places.tolist() == [0, 0, 0]
        torch.testing.assert_close(values, torch.full((3,), value), equal_nan=True)
    values, places = ops.row_max(torch.empty(0, 5))
    assert (values.shape, places.shape) == ((0,), (0,))


def test_rows_split_over_threads_equal_rows_alone():
    x, weight = torch.randn(300, 576).bfloat16(), torch.randn(576).bfloat16()
    whole = ops.rms_norm(x, weight, 1e-5)
    assert torch.equal(whole, torch.cat([ops.rms_norm(x[i : i + 1], weight, 1e-5) for i in range(300)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extremes_and_nan_come_through(dtype):
    gate = torch.tensor([[-1e4, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4, float("nan")]]).to(dtype)
    x = torch.cat((gate, torch.ones_like(gate)), dim=1)
    with ops.use("reference"):
        want = ops.silu_and_mul(x)
    torch.testing.assert_close(ops.silu_and_mul(x), want, rtol=BOUND[dtype], atol=1e-30, equal_nan=True)
    exact = F.gelu(gate.double(), approximate="tanh").to(dtype)
    torch.testing.assert_close(ops.gelu_tanh_and_mul(x), exact, rtol=BOUND[dtype], atol=1e-30, equal_nan=True)
    assert ops.rms_norm(gate, torch.ones_like(gate[0]), 1e-5).isnan().all()


def test_gelu_is_exact_where_it_is_small():
    gate = torch.linspace(-4, 4, 1001)[None]
    got = ops.gelu_tanh_and_mul(torch.cat((gate, torch.ones_like(gate)), dim=1))
    want = F.gelu(gate.double(), approximate="tanh").float()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


def test_a_slot_or_position_outside_is_refused_before_anything_is_written():
    cache = torch.zeros(2, 1, 8, 4)
    qkv, table = torch.ones(2, 12), torch.ones(10, 4)
    for positions, slots in (([0, 10], [0, 1]), ([0, 1], [0, 16]), ([0, 1], [-1, 1])):
        where = (torch.tensor(positions), table, cache, cache.clone(), torch.tensor(slots))
        with pytest.raises(RuntimeError, match=r"expected 0 to (9|15)"):
            ops.rope_and_cache(qkv, *where, 1, 1)
    assert not cache.any()
