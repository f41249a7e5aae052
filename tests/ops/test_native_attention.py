"""Native paged attention against the reference, and against itself in other company."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio import ops

pytestmark = pytest.mark.usefixtures("isa")
# Relative to the largest output. bfloat16: weights and result are rounded to 8 bits each.
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2 * 2.0**-8}
WHOLE = list(ops.WHOLE_NUMBERS)
DTYPES = [torch.float32, torch.bfloat16, *WHOLE]  # of the cache
HEADS = [(4, 4), (9, 3), (5, 1)]
WINDOWS = [None, 1, 100, 321]


@pytest.fixture(scope="module")
def agree(isa):
    """Whole numbers meet bfloat16 where the processor multiplies it, floats elsewhere."""
    bound = BOUND | dict.fromkeys(WHOLE, BOUND[torch.bfloat16 if isa == "avx512_bf16" else torch.float32])

    def check(batch, window=None):
        got = ops.paged_attention(*batch.call(), window=window)
        with ops.use("reference"):
            want = ops.paged_attention(*batch.call(), window=window)
        assert got.dtype == want.dtype == batch.q.dtype
        difference = (got.float() - want.float()).abs().max() / want.float().abs().max()
        assert difference <= max(bound[batch.k_cache.dtype], BOUND[batch.q.dtype])

    return check


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("head_dim", [6, 8, 14, 16, 48, 64, 80, 96, 128, 256])
def test_every_head_size(make_paged, agree, head_dim, heads, dtype):
    if dtype == torch.uint8 and head_dim % 8:
        return  # refused: see below
    agree(make_paged([1, 1, 9, 70], [1, 300, 9, 90], heads=heads, head_dim=head_dim, dtype=dtype))


@settings(max_examples=12, deadline=None)
@given(
    sequences=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 400)), min_size=1, max_size=6),
    heads=st.sampled_from(HEADS),
    head_dim=st.sampled_from([8, 24, 64]),
    block_size=st.sampled_from([1, 8, 13, 16, 32, 64, 100]),
    dtype=st.sampled_from(DTYPES),
    window=st.none() | st.integers(1, 600),
)
def test_any_batch(make_paged, agree, sequences, heads, head_dim, block_size, dtype, window):
    queries, lengths = [q for q, _ in sequences], [q + known for q, known in sequences]
    agree(make_paged(queries, lengths, heads, head_dim, block_size, dtype), window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_beside_bfloat16(make_paged, agree, dtype, window):
    sizes = {"heads": (9, 3), "head_dim": 64, "activations": torch.bfloat16}
    agree(make_paged([1, 5, 300], [700, 70, 300], dtype=dtype, **sizes), window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 255, 256, 257, 512, 699, 700, 701])
def test_windows_that_end_at_every_border(make_paged, agree, window, dtype):
    """Of a tile of keys, of a chunk, of the sequence; in decoding, in a chunk of a prompt and in a whole one."""
    agree(make_paged([1, 90, 520], [700, 700, 520], heads=(5, 1), head_dim=32, dtype=dtype), window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sharpness", [1, 40])  # the second moves a row's reference score again and again
@pytest.mark.parametrize("dtype", DTYPES)
def test_alone_in_a_batch_and_in_chunks_are_the_same_bits(make_paged, dtype, sharpness, window):
    queries = [1, 1, 600, 7, 30]
    batch = make_paged(queries, [1, 700, 600, 300, 541], heads=(9, 3), head_dim=64, dtype=dtype)
    batch.q.mul_(sharpness)
    whole = ops.paged_attention(*batch.call(), window=window)
    for s, count in enumerate(queries):
        start = int(batch.query_start[s])
        for rows in {1, 5, count // 2, count}:
            if 0 < rows <= count:
                alone = ops.paged_attention(*batch.one(s, rows), window=window)
                assert torch.equal(alone, whole[start : start + rows])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_gives_the_bits_of_prefill(make_paged, dtype, window):
    prefill = make_paged([520], [520], heads=(9, 3), head_dim=64, dtype=dtype)
    whole = ops.paged_attention(*prefill.call(), window=window)
    tables, one = prefill.block_tables, torch.tensor([0, 1], dtype=torch.int32)
    for position in (0, 63, 64, 255, 256, 300, 519):
        length = torch.tensor([position + 1], dtype=torch.int32)
        caches = (prefill.k_cache, prefill.v_cache, tables, one, length, prefill.scale)
        q = prefill.q[position : position + 1]
        row = ops.paged_attention(q, *caches, 1, position + 1, prefill.scales, window)
        assert torch.equal(row[0], whole[position])


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_that_grow_along_the_sequence(make_paged, agree, dtype):
    batch = make_paged([1, 300], [700, 300], heads=(9, 3), head_dim=64, dtype=dtype)
    for s, keys in enumerate(batch.k):
        growing = torch.linspace(0, 12, len(keys)).view(-1, 1, 1) * batch.q[-1, 0].float() / 8
        batch.store(s, 0, keys + growing)
    agree(batch)


@pytest.mark.parametrize("window", [None, 700])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_nothing(make_paged, dtype, window):
    batch = make_paged([1, 1, 300], [900, 1500, 400], heads=(9, 3), head_dim=64, dtype=dtype)
    many = ops.paged_attention(*batch.call(), window=window)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = ops.paged_attention(*batch.call(), window=window)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(many, alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("garbage", [0.0, float("inf"), 3e38])
def test_what_lies_behind_a_sequence_is_never_read(make_paged, garbage, dtype):
    shape = {"queries": [1, 20], "lengths": [37, 21], "head_dim": 64, "dtype": dtype}
    clean = ops.paged_attention(*make_paged(**shape).call())
    assert torch.equal(clean, ops.paged_attention(*make_paged(**shape, garbage=garbage).call()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_lies_before_a_window_is_neither_read_nor_looked_up(make_paged, dtype):
    """But for the tile of 64 keys in which the window begins. So the cost is that of the window."""
    batch = make_paged([1, 70, 3], [700, 641, 20], head_dim=64, dtype=dtype)
    clean = ops.paged_attention(*batch.call(), window=130)
    for s, first in ((0, 700 - 130), (1, 571 - 129)):
        before = first // 64 * 64 // 16
        blocks = batch.block_tables[s, :before].long()
        for cache in (batch.k_cache, batch.v_cache):
            cache[blocks] = 99 if dtype in WHOLE else float("nan")
        if batch.scales is not None:
            batch.scales[blocks] = float("nan")
        batch.block_tables[s, :before] = -1
    assert torch.equal(ops.paged_attention(*batch.call(), window=130), clean)
    batch.block_tables[1, before] = -1
    with pytest.raises(RuntimeError, match=rf"block_tables\[1, {before}\] is -1"):
        ops.paged_attention(*batch.call(), window=130)
    with pytest.raises(RuntimeError, match="window is 0, expected a positive number"):
        ops.paged_attention(*batch.call(), window=0)


@pytest.mark.parametrize(("dtype", "most"), [(torch.int8, 0.012), (torch.uint8, 0.2)])
@pytest.mark.parametrize("loud", [1, 100])
def test_whole_numbers_cost_little_precision(make_paged, dtype, most, loud):
    """Of normal numbers in 8 bits a value is off by 0.6 % and a weight by as much: 0.9 % together, beside exact
    attention. In 4 bits it is 16 times that. A channel of keys that is louder than the others, to which queries are
    deaf, makes less of a difference than it is louder: it is spread over all before numbers are rounded.
    """
    batch = make_paged([1, 5, 300], [400, 70, 300], heads=(9, 3), head_dim=64, dtype=dtype)
    if loud > 1:
        batch.q[..., 7], most = 0, 10 * most
        for s, keys in enumerate(batch.k):
            keys[..., 7] = loud
            batch.store(s, 0, keys)
    got = ops.paged_attention(*batch.call())
    for s, length in enumerate(batch.seq_lens.tolist()):
        rows = slice(*batch.query_start[s : s + 2].tolist())
        mask = torch.ones(rows.stop - rows.start, length, dtype=torch.bool).tril(
            length - rows.stop + rows.start
        )
        q, k, v = (x.transpose(0, 1)[None] for x in (batch.q[rows], batch.k[s], batch.v[s]))
        want = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)[0].transpose(0, 1)
        assert (got[rows] - want).square().mean().sqrt() <= most * want.square().mean().sqrt()


@pytest.mark.parametrize("dtype", WHOLE)
def test_a_scale_that_is_not_a_number_stays_in_its_sequence_and_zeros_stay_zeros(make_paged, dtype):
    batch = make_paged([1, 1, 1], [300, 40, 7], head_dim=64, dtype=dtype)
    clean = ops.paged_attention(*batch.call())
    batch.scales[batch.block_tables[0, 0], :, 0, 3] = float("nan")
    batch.scales[batch.block_tables[1, 1], :, 1, 3] = float("inf")
    batch.v_cache[batch.block_tables[1, 1], :, 3] = 0
    batch.v_cache[batch.block_tables[2, 0]] = 0
    batch.scales[batch.block_tables[2, 0], :, 1] = 0.0
    got = ops.paged_attention(*batch.call())
    assert got[0].isnan().all()
    assert not got[1].isfinite().any()
    assert got[1].isnan().all() or dtype == torch.uint8  # which has no zero that infinity could meet
    assert not got[2].any()
    batch.block_tables[0] = batch.block_tables[2]
    batch.seq_lens[0] = 7
    assert torch.equal(ops.paged_attention(*batch.call())[2], got[2])
    assert clean.isfinite().all()


def test_large_scores_do_not_overflow_and_nan_stays_in_its_sequence(make_paged, agree):
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


def test_scales_belong_to_whole_numbers(make_paged):
    whole, floats = make_paged([1], [20], dtype=torch.int8), make_paged([1], [20])
    for batch, scales, words in (
        (whole, None, "scales belong to a cache of dtype Char or Byte, not Char: it has none"),
        (floats, whole.scales, "scales belong to a cache of dtype Char or Byte, not Float"),
        (whole, whole.scales[:, :, :1].contiguous(), "scales has size 1 in dimension 2, expected 2"),
        (whole, whole.scales.float(), "scales has dtype Float, expected BFloat16"),
    ):
        with pytest.raises(RuntimeError, match=words):
            ops.paged_attention(*batch.call()[:-1], scales)
    with pytest.raises(RuntimeError, match="cache has dtype Float, expected BFloat16 like the activations"):
        ops.paged_attention(floats.q.bfloat16(), *floats.call()[1:])
    half = make_paged([1], [20], head_dim=16, dtype=torch.uint8)
    for width, words in (
        (24, "cache has size 8 in dimension 3, expected 12"),
        (14, "head_dim is 14, expected a mult"),
    ):
        with pytest.raises(RuntimeError, match=words):
            ops.paged_attention(torch.zeros(1, 4, width), *half.call()[1:])
