"""Attention mass by blocks: both implementations against each other and against attention itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio import ops

DTYPES = [torch.float32, torch.bfloat16, torch.int8]  # of the cache
HEADS = [(4, 4), (9, 3), (5, 1)]


def mass_of(batch, s, rows=None, window=None):
    """Of sequence s, all its queries or its first `rows`."""
    q, k_cache, _, table, _, seq_lens, scale, *_, scales = batch.one(s, rows)
    length = int(seq_lens[0])
    blocks = table[0, : -(-length // k_cache.shape[2])]
    return ops.attention_mass(q, k_cache, blocks, length, scale, scales, window)


def by_attention(batch, s, window=None):
    """The same through `paged_attention`: a block's values are ones, all others are zeros."""
    q, k_cache, _, table, starts, seq_lens, scale, *_ = batch.one(s)
    k_cache, size = k_cache.nan_to_num(), k_cache.shape[2]
    shares = []
    for block in table[0, : -(-int(seq_lens[0]) // size)].tolist():
        v_cache = torch.zeros_like(k_cache)
        v_cache[block] = 1
        with ops.use("reference"):
            where = (table, starts, seq_lens)
            shares.append(ops.paged_attention(q, k_cache, v_cache, *where, scale, 1, 1, None, window)[..., 0])
    return torch.stack(shares, dim=-1)


@pytest.mark.parametrize("implementation", ["reference", "native"])
@pytest.mark.parametrize("window", [None, 1, 40])
@pytest.mark.parametrize("length", [7, 48, 90])
def test_it_is_what_attention_gives_to_each_block(make_paged, length, window, implementation, built):  # noqa: ARG001
    batch = make_paged([3, 7], [length, 100], heads=(9, 3), head_dim=24)
    with ops.use(implementation):
        mass = mass_of(batch, 0, window=window)
    assert mass.dtype == torch.float32
    torch.testing.assert_close(mass, by_attention(batch, 0, window), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mass.sum(dim=-1), torch.ones(mass.shape[:2]))


@pytest.mark.usefixtures("isa")
@settings(max_examples=25, deadline=None)
@given(
    queries=st.integers(1, 70),
    known=st.integers(0, 300),
    heads=st.sampled_from(HEADS),
    head_dim=st.sampled_from([6, 24, 64, 128]),
    block_size=st.sampled_from([1, 13, 16, 32, 100]),
    dtype=st.sampled_from(DTYPES),
    window=st.none() | st.integers(1, 400),
)
def test_native_equals_the_reference(make_paged, queries, known, heads, head_dim, block_size, dtype, window):
    batch = make_paged([queries], [queries + known], heads, head_dim, block_size, dtype)
    batch.q.mul_(4)
    got = mass_of(batch, 0, window=window)
    with ops.use("reference"):
        want = mass_of(batch, 0, window=window)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_whatever_else_the_call_has(make_paged, dtype):
    batch = make_paged([70], [400], heads=(9, 3), head_dim=64, dtype=dtype)
    whole = mass_of(batch, 0)
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        assert torch.equal(mass_of(batch, 0), whole)
    finally:
        torch.set_num_threads(before)
    for rows in (1, 5, 69):
        part = mass_of(batch, 0, rows)
        assert torch.equal(part, whole[:rows, :, : part.shape[2]])
        assert not whole[:rows, :, part.shape[2] :].any()


@pytest.mark.usefixtures("built")
def test_what_does_not_fit_is_refused(make_paged):
    batch = make_paged([2], [40])
    with pytest.raises(RuntimeError, match="seq_len is 40 of 2 queries and 2 blocks of 16 tokens"):
        ops.attention_mass(batch.q, batch.k_cache, batch.block_tables[0, :2], 40, 1.0)
    with pytest.raises(RuntimeError, match=r"blocks\[2\] is 99, expected 0 to"):
        ops.attention_mass(batch.q, batch.k_cache, torch.tensor([0, 1, 99], dtype=torch.int32), 40, 1.0)
