"""Keys and values in whole numbers: what is written, by native kernels and in torch, held against Hadamard's matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_pio import ops
from inference_pio.ops import kept_heads, reference

WHOLE = list(ops.WHOLE_NUMBERS)
some = settings(max_examples=25, deadline=None)
sizes = st.sampled_from([2, 6, 8, 14, 24, 40, 48, 64, 72, 80, 96, 112, 128, 136, 256])


def matrix(size: int) -> Tensor:
    """Sylvester's: [[H, H], [H, -H]] from [1] on, along the diagonal in parts."""
    width = size & -size
    part = torch.ones(1, 1)
    while len(part) < width:
        part = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), part)
    return torch.block_diag(*[part] * (size // width))


def numbers(cache: Tensor) -> Tensor:
    """What a row of a cache stands for, times one over its scale; 4 bits by a loop over bytes."""
    if cache.dtype == torch.int8:
        return cache.float()
    rows = []
    for row in cache.reshape(-1, cache.shape[-1]).tolist():
        found: list[int] = []
        for start in range(0, len(row), 16):
            group = row[start : start + 16]
            found += [byte % 16 for byte in group] + [byte // 16 for byte in group]
        rows.append(found)
    return torch.tensor(rows).float().view(*cache.shape[:-1], -1) - 7.5


def write(qkv: Tensor, table: Tensor, slots: Tensor, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Of two query heads and two of keys and values."""
    width = ops.kept_width(qkv.shape[1] // 6, dtype)
    caches = [torch.zeros(2, 2, 16, width, dtype=dtype) for _ in range(2)]
    scales = torch.zeros(2, 2, 2, 16, dtype=ops.SCALE_DTYPE)
    ops.rope_and_cache(qkv, slots % 9, table, *caches, slots, 2, 2, scales)
    return caches, scales


@some
@given(size=sizes, seed=st.integers(0, 99))
def test_turning_is_hadamards_matrix_and_twice_the_head_again(size: int, seed: int) -> None:
    x = torch.randn(3, 2, size, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(kept_heads.turn(x), x @ matrix(size), atol=1e-4, rtol=1e-5)
    twice = kept_heads.turn(kept_heads.turn(x)) / kept_heads.turned_width(size)
    torch.testing.assert_close(twice, x, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("isa")
@some
@given(
    tokens=st.integers(1, 9),
    head_dim=sizes,
    size=st.sampled_from([1e-30, 1.0, 1e30]),
    kept=st.sampled_from(WHOLE),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_they_are_the_nearest_ones_whatever_stands_beside_them(tokens, head_dim, size, kept, dtype) -> None:
    if kept == torch.uint8 and head_dim % 8:
        return
    rng = torch.Generator().manual_seed(head_dim)
    qkv = (size * torch.randn(tokens, 6 * head_dim, generator=rng)).to(dtype)
    table, slots = torch.rand(9, head_dim, generator=rng), torch.randperm(32, generator=rng)[:tokens]
    caches, scales = write(qkv, table, slots, kept)
    keys, values = qkv.view(tokens, 6, head_dim)[:, 2:].split(2, dim=1)
    wanted = (reference.apply_rope(keys, slots % 9, table), values)
    turned, width = matrix(head_dim), head_dim & -head_dim
    for which, (cache, want) in enumerate(zip(caches, wanted, strict=True)):
        whole = numbers(cache[slots // 16, :, slots % 16])
        scale = scales[slots // 16, :, which, slots % 16].float()
        largest = whole.abs().amax(dim=-1)
        # A scale of 16 bits is up to 1/128 above the least one.
        assert ((largest >= 126) & (largest <= 127) if kept == torch.int8 else largest == 7.5).all()
        off = (whole * scale[..., None] - want.float() @ turned / width).abs() / scale[..., None]
        # bfloat16: the native kernel and torch may round a turned key to neighbours.
        assert off.max() <= 0.501 or (dtype == torch.bfloat16 and which == 0 and off.max() <= 2)
    with ops.use("reference"):
        theirs, their_scales = write(qkv, table, slots, kept)
    assert torch.equal(caches[1], theirs[1]), "values are not turned by angles: the same bits"
    assert torch.equal(scales[:, :, 1], their_scales[:, :, 1])
    for t in range(tokens):
        alone, its_scales = write(qkv[t : t + 1], table, slots[t : t + 1], kept)
        for cache, one in zip(
            (*caches, scales.transpose(2, 3)), (*alone, its_scales.transpose(2, 3)), strict=True
        ):
            at = (slots[t] // 16, slice(None), slots[t] % 16)
            assert torch.equal(cache[at], one[at])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kept", WHOLE)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 0.0, 1e-39, 3e38])
def test_what_has_no_whole_numbers_is_the_middle_one_with_a_scale_that_tells(kept, bad) -> None:
    size = 40
    qkv = torch.randn(3, 6 * size)
    qkv[1] = bad
    table, slots = torch.cat((torch.ones(9, size // 2), torch.zeros(9, size // 2)), dim=1), torch.arange(3)
    caches, scales = write(qkv, table, slots, kept)
    with ops.use("reference"):
        wanted, their_scales = write(qkv, table, slots, kept)
    torch.testing.assert_close(scales, their_scales, rtol=0, atol=0, equal_nan=True)
    middle = 0.0 if kept == torch.int8 else 0.5
    for cache, want in zip(caches, wanted, strict=True):
        assert torch.equal(cache, want)
        got = numbers(cache[0, :, 1])
        assert (got[:, torch.arange(size) % 8 > 0] == middle).all()
        first = got[:, ::8]  # where equal numbers come together
        assert (first >= (126 if kept == torch.int8 else 7.5) if bad == 3e38 else first == middle).all()
    finite = torch.tensor(bad).isfinite()
    assert (scales[0, :, :, 1].isfinite() == finite).all()
    assert scales[0, :, :, [0, 2]].isfinite().all()


@pytest.mark.parametrize("kept", WHOLE)
def test_read_again_they_are_the_head_to_half_a_scale_in_the_mean(kept) -> None:
    x = torch.randn(50, 3, 64)
    x[..., 5] += 30
    whole, scales = kept_heads.quantize_heads(x, kept)
    back = kept_heads.dequantize_heads(whole, scales)
    # Steps of a uniform error: scale / sqrt(12) in each turned number, sqrt(64) of which make one of the head's.
    expected = scales.float() * 64**0.5 / 12**0.5
    error = (back - x).square().mean(dim=-1).sqrt()
    assert (error <= 1.5 * expected).all()
    assert (error >= 0.5 * expected).all()
