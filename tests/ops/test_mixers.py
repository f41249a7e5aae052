"""Native gates, states and latents against torch, on every instruction set, in any company, and in recorded steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_pio import ops

pytestmark = pytest.mark.usefixtures("isa")
# Two roundings of bfloat16 may fall to the other side.
BOUND = {torch.float32: 2e-5, torch.bfloat16: 2 * 2.0**-7}
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
some = settings(max_examples=12, deadline=None)


class Random:
    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.rng, self.dtype = torch.Generator().manual_seed(seed), dtype

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng).to(self.dtype)

    def strided(self, *shape: int) -> Tensor:
        """Rows that lie apart, as parts of a merged product do."""
        width = torch.Size(shape[1:]).numel()
        return self(shape[0], width + 5)[:, 2 : 2 + width].unflatten(1, shape[1:])


def agree(
    run: Callable[[], tuple[Tensor, ...]], dtype: torch.dtype = torch.float32, size: float = 1e-1
) -> None:
    """`size` is that of numbers whose errors count as much as their own size."""
    got = run()
    with ops.use("reference"):
        want = run()
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=BOUND[dtype], atol=BOUND[dtype] * size)


@some
@given(
    tokens=st.integers(1, 20),
    heads=st.integers(1, 5),
    width=st.integers(1, 70),
    dtype=dtypes,
    seed=st.integers(0, 99),
)
def test_gates(tokens: int, heads: int, width: int, dtype: torch.dtype, seed: int) -> None:
    randn = Random(seed, dtype)
    gate, weight = randn.strided(tokens, heads, width) * 3, randn(width).float()
    x = randn(tokens, heads, width)
    agree(lambda: (ops.gated_rms_norm(x.float(), gate, weight, 1e-6),), dtype)
    flat = randn.strided(tokens, width)
    agree(lambda: (ops.sigmoid_gate(flat, gate[:, 0]),), dtype)
    a, b, one = x[:, 0].contiguous(), flat.contiguous(), randn(tokens, 1)
    agree(lambda: (ops.add_shared(a, b), ops.add_shared(a, b, one)), dtype, size=1.0)


@some
@given(tokens=st.integers(1, 9), dtype=dtypes, seed=st.integers(0, 99), data=st.data())
def test_columns(tokens: int, dtype: torch.dtype, seed: int, data: st.DataObject) -> None:
    x = Random(seed, dtype).strided(tokens, 40)
    pieces = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), min_size=1, max_size=6))
    runs = [number for piece in pieces for number in piece]
    want = x[:, [column for first, count in pieces for column in range(first, first + count)]]
    assert torch.equal(ops.take_columns(x, runs), want)
    with ops.use("reference"):
        assert torch.equal(ops.take_columns(x, runs), want)


def test_columns_that_are_not_there() -> None:
    for runs in ([0, 2, 38, 3], [-1, 2], [3, -1]):
        with pytest.raises(RuntimeError, match="x has 40"):
            ops.take_columns(torch.ones(2, 40), runs)


@some
@given(
    tokens=st.integers(1, 50), outputs=st.integers(1, 40), inputs=st.integers(1, 90), seed=st.integers(0, 99)
)
def test_small_products(tokens: int, outputs: int, inputs: int, seed: int) -> None:
    randn = Random(seed)
    x, weight = randn(tokens, inputs), randn(outputs, inputs)
    agree(lambda: (ops.small_linear(x, weight),), size=10.0)
    whole = ops.small_linear(x, weight)
    assert torch.equal(whole, torch.cat([ops.small_linear(row, weight) for row in x.split(1)]))


# Latents --------------------------------------------------------------------------------------------------------------


@some
@given(
    tokens=st.integers(1, 9),
    sizes=st.sampled_from([(1, 3, 2, 5, 7), (4, 12, 4, 32, 16), (3, 24, 16, 40, 20), (20, 33, 64, 130, 50)]),
    pairs=st.booleans(),
    kinds=st.sampled_from(
        [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16,) * 2]
    ),
    seed=st.integers(0, 99),
)
def test_latents(
    tokens: int, sizes: tuple[int, ...], pairs: bool, kinds: tuple[torch.dtype, ...], seed: int
) -> None:
    (heads, nope, rope, latent, value), (dtype, cache_dtype) = sizes, kinds
    randn = Random(seed, dtype)
    table = torch.randn(50, rope, generator=randn.rng)
    positions = torch.randint(50, (tokens,), generator=randn.rng)
    x, kv, norm = (
        randn.strided(tokens, heads, nope + rope),
        randn.strided(tokens, latent + rope),
        randn(latent),
    )
    agree(lambda: (ops.turn_tails(x, positions, table, pairs),), dtype)
    slots = torch.randperm(32, generator=randn.rng)[:tokens]

    def store() -> tuple[Tensor, ...]:
        cache = torch.zeros(4, 8, latent + rope, dtype=cache_dtype)
        ops.store_latents(kv, norm, 1e-6, positions, table, cache, slots, pairs)
        return (cache,)

    agree(store, cache_dtype)
    if dtype == torch.float32:
        up = ops.UpProjections(randn(heads, nope, latent), randn(heads, value, latent))

        def attend(q_TNW: Tensor, *rest: object) -> Tensor:  # noqa: ARG001
            return q_TNW.contiguous() * 0.5

        sequences = ops.Sequences(slots, slots, slots, 1, 1)
        cache = torch.zeros(4, 8, latent + rope)
        agree(lambda: (ops.absorbed_attention(x, up, cache, sequences, 1.0, attend),), size=100.0)


def test_positions_and_slots_that_are_not_there() -> None:
    x, table, cache = torch.ones(2, 1, 8), torch.ones(5, 4), torch.ones(2, 4, 8)
    with pytest.raises(RuntimeError, match=r"positions\[1\] is 5, expected 0 to 4"):
        ops.turn_tails(x, torch.tensor([0, 5]), table, True)
    where = (torch.tensor([0, 1]), table, cache, torch.tensor([8, 0]))
    with pytest.raises(RuntimeError, match=r"slot_mapping\[0\] is 8, expected 0 to 7"):
        ops.store_latents(x[:, 0], torch.ones(4), 1e-6, *where, True)


# States ---------------------------------------------------------------------------------------------------------------

M, N, K, V, C, W, SLOTS = 2, 4, 20, 37, 600, 4, 9


def spans_of(rng: torch.Generator, counts: list[int]) -> ops.Spans:
    starts = torch.tensor([0, *counts]).cumsum(0).int()
    before = torch.randint(3, (len(counts),), generator=rng)  # some begin
    positions = torch.cat([torch.arange(count) + first for count, first in zip(counts, before, strict=True)])
    slots = torch.randperm(SLOTS, generator=rng)[: len(counts)]
    drafts = torch.tensor([int(torch.randint(count, (), generator=rng)) for count in counts]).int()
    some = bool(drafts.any()) and bool(torch.randint(2, (), generator=rng))
    return ops.Spans(starts, positions, slots, max(counts), drafts if some else None)


def rule_of(randn: Random, tokens: int) -> tuple[Tensor, ...]:
    q, k, v = (randn.strided(tokens, *shape) for shape in ((M, K), (M, K), (N, V)))
    g, beta = ops.decay_and_rate(
        randn.strided(tokens, N), randn.strided(tokens, N), torch.zeros(N), torch.ones(N)
    )
    return q, k, v, g, beta


@some
@given(
    counts=st.lists(st.sampled_from([1, 1, 1, 2, 5, 8, 9, 30]), min_size=1, max_size=6),
    dtype=dtypes,
    seed=st.integers(0, 99),
)
def test_states(counts: list[int], dtype: torch.dtype, seed: int) -> None:
    """Outputs and states; slots that nobody names stay as they are, and what a beginning sequence finds is not read."""
    randn = Random(seed, dtype)
    where, tokens = spans_of(randn.rng, counts), sum(counts)
    a, b, a_log, bias = (
        randn.strided(tokens, N) * 9,
        randn.strided(tokens, N),
        randn(N).float(),
        randn(N).float(),
    )
    agree(lambda: ops.decay_and_rate(a, b, a_log, bias), torch.float32, size=1e-4)
    x, taps, rule = randn.strided(tokens, C), randn(C, W).float(), rule_of(randn, tokens)
    kept, matrix = randn(SLOTS, W - 1, C).float(), randn(SLOTS, N, K, V).float()
    begun = where.state_slots[where.positions[where.query_start[:-1].long()] == 0]
    kept[begun], matrix[begun] = torch.nan, torch.nan

    def conv() -> tuple[Tensor, ...]:
        state = kept.clone()
        out = ops.causal_conv(x, taps, state, where)
        return out, state.nan_to_num(7.0)

    def delta() -> tuple[Tensor, ...]:
        state = matrix.clone()
        return ops.gated_delta_rule(*rule, state, where), state

    agree(conv, dtype)
    agree(delta, size=1.0)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_sequence_is_computed_alike_in_any_company(threads: int) -> None:
    randn, counts = Random(0), [1, 3, 1, 8, 2]
    where, tokens = spans_of(randn.rng, counts), sum(counts)
    x, taps, rule = randn(tokens, C), randn(C, W), rule_of(randn, tokens)
    kept, matrix = randn(SLOTS, W - 1, C), randn(SLOTS, N, K, V)
    states, before = (kept.clone(), matrix.clone()), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = (ops.causal_conv(x, taps, states[0], where), ops.gated_delta_rule(*rule, states[1], where))
    finally:
        torch.set_num_threads(before)
    for s, (start, end) in enumerate(where.query_start.unfold(0, 2, 1).tolist()):
        own = ops.Spans(
            torch.tensor([0, end - start]).int(),
            where.positions[start:end],
            where.state_slots[s : s + 1],
            end - start,
            None if where.num_drafts is None else where.num_drafts[s : s + 1],
        )
        one = (
            ops.causal_conv(x[start:end], taps, kept, own),
            ops.gated_delta_rule(*(part[start:end] for part in rule), matrix, own),
        )
        assert all(torch.equal(alone, part[start:end]) for alone, part in zip(one, whole, strict=True))
    assert torch.equal(kept, states[0])
    assert torch.equal(matrix, states[1])


def test_rows_and_slots_that_are_not_there() -> None:
    x, taps, state = torch.ones(2, C), torch.ones(C, W), torch.ones(SLOTS, W - 1, C)
    positions = torch.tensor([0, 1])
    for starts, slot, drafts, words in (
        ([0, 2], SLOTS, 0, r"state_slots\[0\] is 9"),
        ([0, 3], 0, 0, "query_start runs from 0 to 3"),
        ([0, 2], 0, 2, "num_drafts is 2 of 2 rows"),
        ([0, 2], 0, -1, "num_drafts is -1 of 2 rows"),
    ):
        rows, slots = torch.tensor(starts).int(), torch.tensor([slot])
        where = ops.Spans(rows, positions, slots, 2, torch.tensor([drafts]).int())
        with pytest.raises(RuntimeError, match=words):
            ops.causal_conv(x, taps, state, where)


# Routers --------------------------------------------------------------------------------------------------------------


@some
@given(
    tokens=st.integers(1, 40),
    groups=st.sampled_from([(1, 1), (4, 2), (2, 1), (4, 4)]),
    per_token=st.integers(1, 6),
    normalize=st.booleans(),
    seed=st.integers(0, 999),
)
def test_sigmoid_routers(
    tokens: int, groups: tuple[int, int], per_token: int, normalize: bool, seed: int
) -> None:
    randn = Random(seed)
    x, router, bias = randn(tokens, 72), randn(24, 72) / 8, randn(24)
    call = (x, router, bias, per_token, groups, normalize, 1.8)
    agree(lambda: ops.top_sigmoid_experts(*call))
    rows = [ops.top_sigmoid_experts(row, *call[1:]) for row in x.split(1)]
    for number, part in enumerate(ops.top_sigmoid_experts(*call)):
        assert torch.equal(part, torch.cat([row[number] for row in rows]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_scores_that_are_no_numbers_choose_experts_that_exist(value: float, implementation: str) -> None:
    x, router = torch.ones(3, 16), Random(0)(6, 16)
    x[1, 3], x[1, 4] = value, -value
    router[:, 3:5] = 1.0
    with ops.use("reference" if implementation == "reference" else "native"):
        chosen, weights = ops.top_sigmoid_experts(x, router, torch.zeros(6), 2, (3, 2), True)
    assert chosen[1].tolist() == [0, 1]
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()


def test_groups_that_cannot_be() -> None:
    call = (torch.ones(1, 8), torch.ones(6, 8), torch.ones(6))
    for per_token, groups, words in (
        (2, (4, 2), "6 experts cannot be 4 groups"),
        (2, (6, 2), "6 experts cannot be 6 groups"),
        (3, (3, 1), "cannot go through 3 experts in 1 of 3"),
        (7, (1, 1), "cannot go through 7"),
    ):
        with pytest.raises(RuntimeError, match=words):
            ops.top_sigmoid_experts(*call, per_token, groups)


# Recorded -------------------------------------------------------------------------------------------------------------


def test_a_recorded_step_takes_the_slots_and_positions_that_it_finds() -> None:
    """Two layers of states, in steps of one token of each of three sequences: others each time, some beginning."""
    randn = Random(0)
    taps, weight, project = randn(C, W), randn(V), randn(2 * M * K + N * V + 2 * N, N * V)
    width = len(project)
    runs = [0, 2 * M * K + N * V]

    def step(x: Tensor, where: ops.Spans, conv: Tensor, matrix: Tensor) -> Tensor:
        for layer in range(2):
            made = ops.small_linear(x, project)
            ba = ops.take_columns(made, [width - 2 * N, 2 * N])
            qkv = ops.causal_conv(ops.take_columns(made, runs), taps[: runs[1]], conv[layer], where)
            q, k, v = qkv.split((M * K, M * K, N * V), dim=1)
            g, beta = ops.decay_and_rate(ba[:, :N], ba[:, N:], weight[:N], weight[N : 2 * N])
            heads = (q.unflatten(1, (M, K)), k.unflatten(1, (M, K)), v.unflatten(1, (N, V)))
            out = ops.gated_delta_rule(*heads, g, beta, matrix[layer], where)
            x = ops.gated_rms_norm(out, v.unflatten(1, (N, V)), weight, 1e-6).flatten(1)
        return ops.sigmoid_gate(x, x)

    def inputs(seed: int) -> tuple[Tensor, ops.Spans]:
        other = Random(seed)
        return other(3, N * V), spans_of(other.rng, [1, 1, 1])

    caches = randn(2, SLOTS, W - 1, runs[1]), randn(2, SLOTS, N, K, V)
    same = tuple(cache.clone() for cache in caches)
    x, where = inputs(0)
    recorded = ops.RecordedStep(lambda: step(x, where, *caches))
    assert torch.equal(recorded.result, step(*inputs(0), *same))
    for seed in (1, 2, 3, 1):
        other, there = inputs(seed)
        want = step(other, there, *same)
        x.copy_(other)
        for name in ("query_start", "positions", "state_slots"):
            getattr(where, name).copy_(getattr(there, name))
        assert torch.equal(recorded.replay(), want)
        assert all(map(torch.equal, caches, same))
