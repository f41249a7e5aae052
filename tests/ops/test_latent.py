"""Latent attention against the plain mathematics of its definition, and its two forms against each other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers.models.deepseek_v3.modeling_deepseek_v3 import apply_rotary_pos_emb_interleave

from inference_pio import ops
from inference_pio.ops import reference

N, P, R, V, C, BLOCK = 4, 12, 4, 16, 32, 16
SHAPES = {
    "as wide keys as values": (N, P, R, V, C),
    "wide keys": (3, 24, 8, 10, 16),
    "wide values": (2, 8, 4, 28, 6),
    "one head": (1, P, R, V, C),
    "published": (20, 192, 64, 256, 512),
}
BOUND = {torch.float32: 1e-5, torch.bfloat16: 0.04}


@dataclass(frozen=True)
class Case:
    """`rows` are each sequence's own, [length, C + R], as they were stored."""

    q: torch.Tensor
    up: ops.UpProjections
    cache: torch.Tensor
    sequences: ops.Sequences
    rows: list[torch.Tensor]
    scale: float

    def plain(self) -> torch.Tensor:
        """Every key and value made, every score of every head by itself: eq. 10, 11, 17 and 18 of DeepSeek-V2."""
        k_up, v_up = (part.double() for part in self.up)
        made = []
        for s, rows in enumerate(self.rows):
            start, end = self.sequences.query_start[s : s + 2].tolist()
            latent, turned = rows.double().split([k_up.shape[2], rows.shape[1] - k_up.shape[2]], dim=1)
            first = len(rows) - (end - start)
            heads = []
            for query, k_head, v_head in zip(self.q[start:end].double().unbind(1), k_up, v_up, strict=True):
                keys, values = torch.cat((latent @ k_head.T, turned), dim=1), latent @ v_head.T
                rows_of_head = []
                for number, one in enumerate(query):
                    seen = slice(0, first + number + 1)
                    rows_of_head.append((keys[seen] @ one * self.scale).softmax(0) @ values[seen])
                heads.append(torch.stack(rows_of_head))
            made.append(torch.stack(heads, dim=1))
        return torch.cat(made)


def case(
    shape: tuple[int, ...] = SHAPES["as wide keys as values"],
    queries: tuple[int, ...] = (1, 9, 40),
    lengths: tuple[int, ...] = (33, 9, 55),
    dtype: torch.dtype = torch.float32,
    cache_dtype: torch.dtype | None = None,
) -> Case:
    heads, nope, rope, value, latent = shape
    rng = torch.Generator().manual_seed(len(queries))

    def randn(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=rng).to(dtype)

    up = ops.UpProjections(
        randn(heads, nope, latent) / latent**0.5, randn(heads, value, latent) / latent**0.5
    )
    used = [-(-length // BLOCK) for length in lengths]
    # Blocks in no order, garbage behind each sequence.
    order = torch.randperm(sum(used) + 2, generator=rng).tolist()
    cache = torch.full((len(order), BLOCK, latent + rope), float("nan"), dtype=cache_dtype or dtype)
    tables = torch.zeros(len(lengths), max(used) + 1, dtype=torch.int32)
    rows = []
    for s, length in enumerate(lengths):
        tables[s, : used[s]] = torch.tensor([order.pop() for _ in range(used[s])], dtype=torch.int32)
        at = torch.arange(length)
        cache[tables[s].long()[at // BLOCK], at % BLOCK] = randn(length, latent + rope).to(cache.dtype)
        rows.append(cache[tables[s].long()[at // BLOCK], at % BLOCK].to(dtype))
    starts = torch.tensor([0, *queries]).cumsum(0).int()
    sequences = ops.Sequences(tables, starts, torch.tensor(lengths).int(), max(queries), max(lengths))
    q = randn(sum(queries), heads, nope + rope)
    return Case(q, up, cache, sequences, rows, (nope + rope) ** -0.5)


def agree(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    assert found.shape == expected.shape
    difference = (found.double() - expected).abs().max() / expected.abs().max()
    assert difference <= BOUND[dtype]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_forms_are_the_definition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """On native attention, whose head here is one row of the cache: 576 values in the published model."""
    one = case(shape, dtype=dtype)
    expected = one.plain()
    call = (one.q, one.up, one.cache, one.sequences, one.scale, ops.paged_attention)
    agree(ops.absorbed_attention(*call), expected, dtype)
    agree(ops.expanded_attention(*call, 2**20), expected, dtype)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_both_forms_in_torch_alone(shape: tuple[int, ...]) -> None:
    one = case(shape)
    call = (one.q, one.up, one.cache, one.sequences, one.scale, reference.paged_attention)
    expected = one.plain()
    with ops.use("reference"):
        agree(ops.absorbed_attention(*call), expected, torch.float32)
        agree(ops.expanded_attention(*call, 2**20), expected, torch.float32)


def test_a_cache_in_bfloat16_beside_float32() -> None:
    one = case(cache_dtype=torch.bfloat16)
    call = (one.q, one.up, one.cache, one.sequences, one.scale, ops.paged_attention)
    absorbed, expanded = ops.absorbed_attention(*call), ops.expanded_attention(*call, 2**20)
    agree(expanded, one.plain(), torch.float32)
    # Where the processor multiplies pairs of bfloat16, queries are rounded to meet such a cache.
    assert (absorbed - expanded).abs().max() / expanded.abs().max() < BOUND[torch.bfloat16]


def test_as_many_heads_at_once_as_memory_is_meant_for() -> None:
    one = case()
    calls = []

    def attend(q: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(q.shape[1])
        return ops.paged_attention(q, *rest)  # type: ignore[arg-type]

    call = (one.q, one.up, one.cache, one.sequences, one.scale, attend)
    whole = ops.expanded_attention(*call, 2**20)
    assert calls == [N, N, N]
    calls.clear()
    # Two heads of the longest sequence: keys and values of 16 floats, and what they are copied from.
    torch.testing.assert_close(ops.expanded_attention(*call, 2 * 4 * 55 * 16 * 4), whole)
    assert calls == [3, 1, N, 2, 2]
    calls.clear()
    torch.testing.assert_close(ops.expanded_attention(*call, 0), whole)
    assert calls == [1] * 3 * N


def test_some_sequences_of_a_call() -> None:
    one = case(queries=(1, 9, 3, 40), lengths=(33, 9, 20, 55))
    whole = ops.absorbed_attention(one.q, one.up, one.cache, one.sequences, one.scale, ops.paged_attention)
    rows, some = one.sequences.some([3, 1])
    assert rows.tolist() == [*range(13, 53), *range(1, 10)]
    assert some.query_start.tolist() == [0, 40, 49]
    assert (some.max_query_len, some.max_seq_len) == (40, 55)
    found = ops.absorbed_attention(one.q[rows], one.up, one.cache, some, one.scale, ops.paged_attention)
    torch.testing.assert_close(found, whole[rows])


def test_neighbours_turn_by_the_angle_of_the_position() -> None:
    x = torch.randn(7, 3, 8)
    positions = torch.tensor([0, 1, 5, 200, 7, 7, 30])
    table = ops.cos_sin_table(ops.inverse_frequencies(10_000.0, 8), 256)
    found = ops.turn_pairs(x, positions, table)
    angles = positions[:, None].double() * 10_000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    turned = torch.view_as_complex(x.double().view(7, 3, 4, 2)) * torch.polar(
        torch.ones_like(angles), angles
    ).unsqueeze(1)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    cos, sin = (part[positions].repeat(1, 2)[None] for part in table.chunk(2, dim=-1))
    theirs, _ = apply_rotary_pos_emb_interleave(x.transpose(0, 1)[None], x[None, None, :, 0], cos, sin)
    assert torch.equal(found, theirs[0].transpose(0, 1))


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_a_normed_latent_and_a_turned_key(pairs: bool, cache_dtype: torch.dtype) -> None:
    kv, norm = torch.randn(5, C + R), 1 + 0.3 * torch.randn(C)
    positions, slots = torch.tensor([0, 1, 2, 9, 100]), torch.tensor([3, 50, 17, 0, 63])
    table = ops.cos_sin_table(ops.inverse_frequencies(10_000.0, R), 128)
    cache = torch.full((4, BLOCK, C + R), 7.0, dtype=cache_dtype)
    ops.store_latents(kv, norm, 1e-6, positions, table, cache, slots, pairs)
    flat = cache.flatten(0, 1)
    turn = ops.turn_pairs if pairs else reference.apply_rope
    latent = kv[:, :C] / (kv[:, :C].square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm
    expected = torch.cat((latent, turn(kv[:, None, C:], positions, table)[:, 0]), dim=-1)
    torch.testing.assert_close(flat[slots], expected.to(cache_dtype))
    untouched = torch.ones(len(flat), dtype=torch.bool).index_fill(0, slots, False)
    assert (flat[untouched] == 7).all()
