"""Attention to chosen blocks: native against torch and against dense attention, and what it finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio import ops
from inference_pio.errors import ConfigError
from inference_pio.ops.kept_heads import dequantize_heads

pytestmark = pytest.mark.usefixtures("isa")
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2 * 2.0**-8}
DTYPES = [torch.float32, torch.bfloat16, torch.int8]
PAGES = ops.Selection("pages", sinks=16, window=32, decode=96, prefill=160)
SINKS = ops.Selection("sinks", sinks=16, window=48)


def empty_bounds(batch):
    K, M, _, H = batch.k_cache.shape
    dtype = torch.bfloat16 if batch.k_cache.dtype == torch.int8 else batch.k_cache.dtype
    return torch.full((K, M, 2, H), float("nan"), dtype=dtype)


def with_bounds(batch):
    """As they stand where every earlier token went through the same layer."""
    bounds = empty_bounds(batch)
    keys = batch.k_cache
    if batch.scales is not None:
        keys = dequantize_heads(keys, batch.scales[:, :, 0])
    keys = keys.float()
    for s, length in enumerate(batch.seq_lens.tolist()):
        for i in range(0, length, keys.shape[2]):
            block = batch.block_tables[s, i // keys.shape[2]]
            of_block = keys[block, :, : length - i]
            bounds[block, :, 0], bounds[block, :, 1] = of_block.amax(1), of_block.amin(1)
    return bounds


def sparse(batch, selection, bounds=None, **changes):
    batch = replace(batch, **changes)
    if bounds is None and selection.kind == "pages":
        bounds = with_bounds(batch)
    caches = (batch.q, batch.k_cache, batch.v_cache, batch.block_tables, batch.query_start, batch.seq_lens)
    return ops.sparse_attention(*caches, batch.scale, selection, bounds, batch.scales)


@pytest.fixture(scope="module")
def agree(isa):
    bound = BOUND | {torch.int8: BOUND[torch.bfloat16 if isa == "avx512_bf16" else torch.float32]}

    def check(batch, selection):
        got = sparse(batch, selection)
        with ops.use("reference"):
            want = sparse(batch, selection)
        assert got.dtype == want.dtype == batch.q.dtype
        difference = (got.float() - want.float()).abs().max() / want.float().abs().max()
        assert difference <= bound[batch.k_cache.dtype]

    return check


@pytest.mark.parametrize("selection", [PAGES, SINKS])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(4, 4), (9, 3), (5, 1)])
@pytest.mark.parametrize("head_dim", [6, 64, 80])
def test_torch_and_native_choose_and_compute_the_same(make_paged, agree, head_dim, heads, dtype, selection):
    agree(make_paged([1, 1, 9, 70, 200], [1, 500, 400, 470, 450], heads, head_dim, dtype=dtype), selection)


@settings(max_examples=12, deadline=None)
@given(
    sequences=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 600)), min_size=1, max_size=5),
    block_size=st.sampled_from([1, 8, 13, 32, 100]),
    dtype=st.sampled_from(DTYPES),
    sinks=st.integers(0, 40),
    window=st.integers(1, 90),
    budgets=st.tuples(st.none() | st.integers(130, 400), st.none() | st.integers(130, 400)),
)
def test_any_batch(make_paged, agree, sequences, block_size, dtype, sinks, window, budgets):
    queries, lengths = [q for q, _ in sequences], [q + known for q, known in sequences]
    kind = "sinks" if budgets == (None, None) else "pages"
    selection = ops.Selection(kind, sinks, window, *budgets)
    agree(make_paged(queries, lengths, (9, 3), 24, block_size, dtype), selection)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_left_out_has_the_bits_of_dense_attention(make_paged, dtype):
    batch = make_paged([1, 9, 600, 1], [300, 260, 600, 20], (9, 3), 64, dtype=dtype)
    dense = ops.paged_attention(*batch.call())
    enough = ops.Selection("pages", 16, 32, decode=304, prefill=608)
    assert torch.equal(sparse(batch, enough), dense)
    assert torch.equal(sparse(batch, ops.Selection("sinks", 0, 600)), dense)
    one_less = ops.Selection("pages", 16, 32, decode=288, prefill=576)
    changed = (sparse(batch, one_less) != dense).flatten(1).any(1)
    # 19 blocks are one too many for the first sequence alone; of the prompt only rows behind 576 may change.
    assert changed[0]
    assert not changed[1:10].any()
    assert changed[10:610].nonzero().min() >= 576
    assert not changed[610]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_read_is_what_a_shorter_sequence_of_those_blocks_would_be(make_paged, dtype):
    """The same bits as dense attention over the chosen blocks; chosen here by another road, block by block."""
    batch = make_paged([1], [500], (3, 1), 64, dtype=dtype)
    bounds = with_bounds(batch)
    blocks = batch.block_tables[0, :32].long()
    q, above, below = batch.q[0].float(), bounds[blocks, 0, 0].float(), bounds[blocks, 0, 1].float()
    most = torch.stack([torch.maximum(q * a, q * b).sum(-1) for a, b in zip(above, below, strict=True)])
    end = (500 - 32) // 16  # the first block of the window
    rank = (most[:end] - most[:end].amax(0)).amax(1)
    kept = 96 // 16 - 1 - (500 // 16 + 1 - end)
    chosen = sorted(rank[1:].topk(kept).indices.add(1).tolist())
    left = torch.tensor([0, *chosen, *range(end, 32)])
    length = torch.tensor([500 - 16 * (32 - len(left))], dtype=torch.int32)
    table = blocks[left].int()[None]
    where = (table, batch.query_start, length, batch.scale, 1, int(length))
    want = ops.paged_attention(batch.q, batch.k_cache, batch.v_cache, *where, batch.scales)
    assert torch.equal(sparse(batch, PAGES), want)
    assert PAGES.keys_read(499, 16) == int(length) == 84


@pytest.mark.parametrize("queries", [1, 12, 90])
def test_a_needle_is_found_by_its_key_and_not_by_a_window(make_paged, queries):
    """One key that fits the queries, far from either end: its value is nearly all of the answer."""
    batch = make_paged([queries], [2000], (3, 1), 64, block_size=32, seed=3)
    direction = torch.nn.functional.normalize(torch.randn(64), dim=0)
    batch.q.mul_(0.1).add_(direction * 8)
    batch.k[0][700, 0] = direction * 60
    batch.store(0, 0, batch.k[0])
    selection = ops.Selection("pages", sinks=32, window=64, decode=256, prefill=256)
    window = ops.Selection("sinks", sinks=32, window=224)
    assert (sparse(batch, selection) - batch.v[0][700, 0]).abs().max() < 1e-3
    assert (sparse(batch, window) - batch.v[0][700, 0]).abs().max() > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("selection", [PAGES, SINKS])
def test_sinks_and_windows_are_a_mask(make_paged, dtype, selection, isa):
    """Against scores with a mask, which reads everything; pages with a budget for no page beside them."""
    if selection is PAGES:
        selection = ops.Selection("pages", 16, 48, decode=64, prefill=64)
    if dtype == torch.int8 and isa == "avx512_bf16":
        pytest.skip("products of bfloat16: another precision, which the parity tests bound")
    batch = make_paged([1, 100, 20], [300, 400, 333], (3, 1), 32, dtype=dtype)
    got, positions = sparse(batch, selection).float(), []
    for s, length in enumerate(batch.seq_lens.tolist()):
        start, stop = batch.query_start[s : s + 2].tolist()
        positions = list(range(length - stop + start, length))
        per_tile = 64 if len(positions) > 16 else 1
        keys = torch.arange(length)
        mask = torch.zeros(len(positions), length, dtype=torch.bool)
        for row, position in enumerate(positions):
            first = positions[row // per_tile * per_tile]
            read = (keys < 16) | (keys >= (first + 1 - 48) // 16 * 16)
            mask[row] = read & (keys <= position)
        k, v = (
            store[batch.block_tables[s].long(), 0].flatten(0, 1)[:length]
            for store in (batch.k_cache, batch.v_cache)
        )
        if batch.scales is not None:
            scales = batch.scales[batch.block_tables[s].long(), 0].transpose(0, 1).flatten(1)[:, :length]
            k, v = dequantize_heads(k, scales[0]), dequantize_heads(v, scales[1])
        k, v = k.float(), v.float()
        scores = torch.einsum("qnh,lh->nql", batch.q[start:stop].float(), k) * batch.scale
        want = torch.einsum("nql,lh->qnh", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)
        assert (got[start:stop] - want).abs().max() <= 4 * BOUND.get(dtype, 1e-5) * want.abs().max()


@pytest.mark.parametrize("selection", [PAGES, SINKS])
def test_no_query_sees_what_comes_after_it(make_paged, selection):
    batch = make_paged([1, 130], [400, 500], (9, 3), 64)
    bounds = with_bounds(batch)
    before = sparse(batch, selection, bounds.clone())
    for which, store in enumerate((batch.k[1], batch.v[1])):
        store[420:] = torch.randn_like(store[420:])
        batch.store(1, which, store)
    after = sparse(batch, selection, bounds)
    assert torch.equal(after[: 1 + 50], before[: 1 + 50])
    assert (after[1 + 50 :] != before[1 + 50 :]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_is_the_same_in_any_company_and_with_guesses_behind_it(make_paged, dtype):
    batch = make_paged([1, 1, 90, 12, 16], [500, 30, 90, 333, 700], (9, 3), 64, dtype=dtype)
    whole = sparse(batch, PAGES)
    bounds = with_bounds(batch)
    for s, count in ((0, 1), (1, 1), (3, 12), (4, 16)):
        start = int(batch.query_start[s])
        for rows in {1, 5, count} & set(range(1, count + 1)):
            q, k, v, tables, starts, lengths, scale, _, _, scales = batch.one(s, rows)
            kept = bounds.clone()
            alone = ops.sparse_attention(q, k, v, tables, starts, lengths, scale, PAGES, kept, scales)
            assert torch.equal(alone, whole[start : start + rows])
        for row in range(count):  # each query as the only one, at its own time
            at = int(batch.seq_lens[s]) - count + row + 1
            one = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([at], dtype=torch.int32)
            q = batch.q[start + row : start + row + 1]
            caches = (batch.k_cache, batch.v_cache, batch.block_tables[s : s + 1], *one)
            alone = ops.sparse_attention(q, *caches, batch.scale, PAGES, bounds.clone(), batch.scales)
            assert torch.equal(alone[0], whole[start + row])


@pytest.mark.parametrize("native", [True, False])
def test_the_last_piece_of_a_prompt_is_no_decoding(make_paged, native):
    """However short it is: of a prompt one row is answered, of a sequence that decodes every one."""
    batch = make_paged([1, 9, 4, 1], [500, 400, 300, 320], (9, 3), 64)
    decode = ops.Selection("pages", 16, 32, decode=96)
    call = (batch.q, batch.k_cache, batch.v_cache, batch.block_tables, batch.query_start, batch.seq_lens)
    with ops.use("native" if native else "reference"):
        dense = ops.paged_attention(*batch.call())
        all_of_them = sparse(batch, decode)
        answered = torch.tensor([0, 9, 10, 11, 12, 13])
        got = ops.sparse_attention(*call, batch.scale, decode, with_bounds(batch), None, answered)
    assert torch.allclose(got[1:10], dense[1:10], atol=1e-6)
    assert not torch.allclose(all_of_them[1:10], dense[1:10], atol=1e-2)
    assert torch.equal(got[:1], all_of_them[:1])
    assert torch.equal(got[10:14], all_of_them[10:14])
    assert torch.allclose(got[14:], dense[14:], atol=1e-6)


def test_the_number_of_threads_changes_nothing(make_paged):
    batch = make_paged([1, 1, 300], [900, 1500, 1400], (9, 3), 64)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(sparse(batch, PAGES))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds_are_those_of_the_keys_that_stand_there(make_paged, dtype, native):
    """Of the blocks that were written to, and of no other; what a guess had left there counts no more."""
    batch = make_paged([1, 40], [100, 60], (4, 2), 32, dtype=dtype)
    want = with_bounds(batch)
    bounds = empty_bounds(batch)
    written = [int(batch.block_tables[0, 6]), *batch.block_tables[1, 1:4].tolist()]
    with ops.use("native" if native else "reference"):
        sparse(batch, PAGES, bounds)
        assert torch.equal(bounds[written], want[written])
        rest = [block for block in range(len(bounds)) if block not in written]
        assert bounds[rest].isnan().all()
        shorter = {"seq_lens": torch.tensor([98, 60], dtype=torch.int32)}
        sparse(batch, PAGES, bounds, **shorter)
    assert torch.equal(bounds[written], with_bounds(replace(batch, **shorter))[written])
    assert not torch.equal(bounds[written[0]], want[written[0]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_recorded_step_chooses_anew_at_every_length(make_paged, dtype):
    """Before, at and behind the length from which something is left out."""
    batch = make_paged([1, 3], [400, 420], (9, 3), 64, dtype=dtype)
    bounds, lengths = with_bounds(batch), batch.seq_lens.clone()
    weight = torch.ones(9 * 64, dtype=batch.q.dtype)

    def step():
        q = ops.rms_norm(batch.q.flatten(1), weight, 1e-6).unflatten(
            1, (9, 64)
        )  # so that q lies in the arena
        caches = (batch.k_cache, batch.v_cache, batch.block_tables, batch.query_start, lengths)
        y = ops.sparse_attention(q, *caches, batch.scale, PAGES, bounds, batch.scales)
        return ops.rms_norm(y.flatten(1), weight, 1e-6)

    recorded = ops.RecordedStep(step)
    for first, second in ((400, 420), (20, 90), (96, 97), (97, 112), (399, 113)):
        lengths.copy_(torch.tensor([first, second]))
        assert torch.equal(recorded.replay(), step())


def test_reading_a_window_and_reading_all_are_the_same_bits(make_paged):
    for dtype in DTYPES:
        batch = make_paged([1, 90, 520, 5], [900, 700, 520, 30], (5, 1), 32, dtype=dtype)
        for window in (1, 64, 130, 300):
            few = ops.paged_attention(*batch.call(), window=window)
            assert torch.equal(ops.paged_attention(*batch.call(), window=window, reads_all=True), few)
    assert batch.block_tables[0, 0] >= 0
    batch.block_tables[0, 0] = -1
    ops.paged_attention(*batch.call(), window=130)
    with pytest.raises(RuntimeError, match=r"block_tables\[0, 0\] is -1"):
        ops.paged_attention(*batch.call(), window=130, reads_all=True)


def test_nan_stays_in_its_sequence(make_paged):
    batch = make_paged([1, 1, 40], [300, 400, 340], (9, 3), 64)
    clean = sparse(batch, PAGES)
    batch.q[0] = float("nan")
    got = sparse(batch, PAGES)
    assert got[0].isnan().all()
    assert torch.equal(got[1:], clean[1:])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (("pages", 16, 32), "pages are chosen within a budget"),
        (("sinks", 16, 32, 100), "sinks have none"),
        (("sinks", 16, 0), "the window 1 or more, got 16, 0"),
        (("pages", 16, 32, 40), "budget of 40 keys is less than sinks 16 \\+ window 32 = 48"),
    ],
)
def test_a_selection_that_cannot_be(numbers, words):
    with pytest.raises(ConfigError, match=words):
        ops.Selection(*numbers)


def test_bounds_of_another_cache_are_refused(make_paged):
    batch = make_paged([1], [200])
    bounds = with_bounds(batch)
    for wrong, words in (
        (bounds[1:].contiguous(), "bounds has size .* in dimension 0"),
        (bounds.half(), "bounds has dtype Half"),
        (bounds[..., :8].contiguous(), "bounds has size 8 in dimension 3, expected 16"),
    ):
        with pytest.raises(RuntimeError, match=words):
            sparse(batch, PAGES, wrong)
    call = (batch.q, batch.k_cache, batch.v_cache, batch.block_tables, batch.query_start, batch.seq_lens)
    with pytest.raises(RuntimeError, match="chosen by bounds: there are none"):
        ops.sparse_attention(*call, batch.scale, PAGES)
