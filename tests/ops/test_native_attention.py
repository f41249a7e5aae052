"""Native paged attention against the reference, and against itself in other company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio import ops

pytestmark = pytest.mark.usefixtures("isa")
# Relative to the largest output. bfloat16: weights and result are rounded to 8 bits each.
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2 * 2.0**-8}
DTYPES = [torch.float32, torch.bfloat16]
HEADS = [(4, 4), (9, 3), (5, 1)]


def agree(batch):
    got = ops.paged_attention(*batch.call())
    with ops.use("reference"):
        want = ops.paged_attention(*batch.call())
    assert got.dtype == want.dtype
    difference = (got.float() - want.float()).abs().max() / want.float().abs().max()
    assert difference <= BOUND[got.dtype]
    return got


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("head_dim", [8, 16, 48, 64, 80, 96, 128, 256])
def test_every_head_size(make_paged, head_dim, heads, dtype):
    agree(make_paged([1, 1, 9, 70], [1, 300, 9, 90], heads=heads, head_dim=head_dim, dtype=dtype))


@settings(max_examples=12, deadline=None)
@given(
    sequences=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 400)), min_size=1, max_size=6),
    heads=st.sampled_from(HEADS),
    head_dim=st.sampled_from([8, 24, 64]),
    block_size=st.sampled_from([8, 13, 16, 32, 64]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_batch(make_paged, sequences, heads, head_dim, block_size, dtype):
    queries, lengths = [q for q, _ in sequences], [q + known for q, known in sequences]
    agree(make_paged(queries, lengths, heads, head_dim, block_size, dtype))


@pytest.mark.parametrize("sharpness", [1, 40])  # the second moves a row's reference score again and again
@pytest.mark.parametrize("dtype", DTYPES)
def test_alone_in_a_batch_and_in_chunks_are_the_same_bits(make_paged, dtype, sharpness):
    queries = [1, 1, 600, 7, 30]
    batch = make_paged(queries, [1, 700, 600, 300, 541], heads=(9, 3), head_dim=64, dtype=dtype)
    batch.q.mul_(sharpness)
    whole = ops.paged_attention(*batch.call())
    for s, count in enumerate(queries):
        start = int(batch.query_start[s])
        for rows in {1, 5, count // 2, count}:
            if 0 < rows <= count:
                assert torch.equal(ops.paged_attention(*batch.one(s, rows)), whole[start : start + rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_gives_the_bits_of_prefill(make_paged, dtype):
    prefill = make_paged([520], [520], heads=(9, 3), head_dim=64, dtype=dtype)
    whole = ops.paged_attention(*prefill.call())
    tables, one = prefill.block_tables, torch.tensor([0, 1], dtype=torch.int32)
    for position in (0, 63, 64, 255, 256, 300, 519):
        length = torch.tensor([position + 1], dtype=torch.int32)
        caches = (prefill.k_cache, prefill.v_cache, tables, one, length, prefill.scale)
        row = ops.paged_attention(prefill.q[position : position + 1], *caches, 1, position + 1)
        assert torch.equal(row[0], whole[position])


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_that_grow_along_the_sequence(make_paged, dtype):
    batch = make_paged([1, 300], [700, 300], heads=(9, 3), head_dim=64, dtype=dtype)
    for s, keys in enumerate(batch.k):
        growing = torch.linspace(0, 12, len(keys)).view(-1, 1, 1) * batch.q[-1, 0].float() / 8
        for at, row in enumerate((keys + growing).to(dtype)):
            block = batch.block_tables[s, at // 16]
            batch.k_cache[block, :, at % 16] = row
    agree(batch)


def test_the_number_of_threads_changes_nothing(make_paged):
    batch = make_paged([1, 1, 300], [900, 1500, 400], heads=(9, 3), head_dim=64)
    many = ops.paged_attention(*batch.call())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = ops.paged_attention(*batch.call())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(many, alone)


@pytest.mark.parametrize("garbage", [0.0, float("inf"), 3e38])
def test_what_lies_behind_a_sequence_is_never_read(make_paged, garbage):
    shape = {"queries": [1, 20], "lengths": [37, 21], "head_dim": 64}
    clean = ops.paged_attention(*make_paged(**shape).call())
    assert torch.equal(clean, ops.paged_attention(*make_paged(**shape, garbage=garbage).call()))


def test_large_scores_do_not_overflow_and_nan_stays_in_its_sequence(make_paged):
    batch = make_paged([1, 40], [300, 40], head_dim=64)
    batch.q.mul_(1e4)
    agree(batch)
    batch.q[0] = float("nan")
    got = ops.paged_attention(*batch.call())
    assert got[0].isnan().all()
    assert got[1:].isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq_lens": [10_000]}, "sequence 0 has 10000 tokens"),
        ({"query_start": [0, 5]}, "query_start runs from 0 to 5"),
        ({"block_tables": [[99, 0, 0, 0]]}, r"block_tables\[0, 0\] is 99"),
        ({"block_tables": [[-1, 0, 0, 0]]}, r"block_tables\[0, 0\] is -1"),
    ],
)
def test_an_index_outside_is_refused(make_paged, change, words):
    batch = make_paged([1], [20])
    arguments = {name: getattr(batch, name) for name in ("block_tables", "query_start", "seq_lens")}
    arguments |= {name: torch.tensor(value, dtype=torch.int32) for name, value in change.items()}
    with pytest.raises(RuntimeError, match=words):
        ops.paged_attention(batch.q, batch.k_cache, batch.v_cache, *arguments.values(), 1.0, 1, 20)
