"""Batches over a paged cache, made the way an engine makes them: shuffled blocks, garbage where nothing lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.ops import native
from inference_pio.ops.kept_heads import quantize_heads


@dataclass(frozen=True)
class Paged:
    """One attention call; `k` and `v` hold each sequence's own keys and values, [length, M, H], as they were stored.

    A cache of whole numbers has `scales`; the other numbers are float32 then, unless `activations` says otherwise.
    """

    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    block_tables: Tensor
    query_start: Tensor
    seq_lens: Tensor
    k: list[Tensor]
    v: list[Tensor]
    scale: float
    scales: Tensor | None

    def store(self, s: int, which: int, rows: Tensor) -> None:
        """All keys (0) or values (1) of sequence s, [length, M, H]."""
        cache = (self.k_cache, self.v_cache)[which]
        at = torch.arange(len(rows))
        block, offset = self.block_tables[s].long()[at // cache.shape[2]], at % cache.shape[2]
        if self.scales is not None:
            rows, self.scales[block, :, which, offset] = quantize_heads(rows, cache.dtype)
        cache[block, :, offset] = rows.to(cache.dtype)

    def call(self) -> tuple[object, ...]:
        queries = int(self.query_start.diff().max())
        where = (self.block_tables, self.query_start, self.seq_lens)
        longest = (queries, int(self.seq_lens.max()))
        return (self.q, self.k_cache, self.v_cache, *where, self.scale, *longest, self.scales)

    def one(self, s: int, rows: int | None = None) -> tuple[object, ...]:
        """Sequence s alone, or only its first `rows` queries as if the others had not come yet."""
        start, end = self.query_start[s : s + 2].tolist()
        length = int(self.seq_lens[s])
        if rows is not None:
            length, end = length - (end - start - rows), start + rows
        starts = torch.tensor([0, end - start], dtype=torch.int32)
        lengths = torch.tensor([length], dtype=torch.int32)
        where = (self.block_tables[s : s + 1], starts, lengths)
        longest = (end - start, length)
        return (self.q[start:end], self.k_cache, self.v_cache, *where, self.scale, *longest, self.scales)


class MakePaged:
    def __call__(
        self,
        queries: Sequence[int],
        lengths: Sequence[int],
        heads: tuple[int, int] = (4, 2),
        head_dim: int = 16,
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        garbage: float = float("nan"),
        seed: int = 0,
        activations: torch.dtype = torch.float32,
    ) -> Paged:
        rng = torch.Generator().manual_seed(seed)
        num_heads, num_kv_heads = heads
        whole = dtype in ops.WHOLE_NUMBERS

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng).to(activations if whole else dtype)

        used = [-(-length // block_size) for length in lengths]
        shape = (sum(used) + 3, num_kv_heads, block_size, ops.kept_width(head_dim, dtype))
        k_cache, v_cache = (torch.full(shape, 99 if whole else garbage, dtype=dtype) for _ in range(2))
        scales = torch.full((*shape[:2], 2, block_size), garbage, dtype=ops.SCALE_DTYPE) if whole else None
        order = torch.randperm(shape[0], generator=rng).tolist()
        tables = torch.zeros(len(lengths), max(used) + 2, dtype=torch.int32)
        keys, values = [], []
        for s, length in enumerate(lengths):
            tables[s, : used[s]] = torch.tensor([order.pop() for _ in range(used[s])], dtype=torch.int32)
            keys.append(randn(length, num_kv_heads, head_dim))
            values.append(randn(length, num_kv_heads, head_dim))
        starts = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
        q = randn(sum(queries), num_heads, head_dim)
        lens = torch.tensor(lengths, dtype=torch.int32)
        made = Paged(q, k_cache, v_cache, tables, starts, lens, keys, values, head_dim**-0.5, scales)
        for s in range(len(lengths)):
            made.store(s, 0, keys[s])
            made.store(s, 1, values[s])
        return made


@pytest.fixture(scope="session")
def make_paged() -> MakePaged:
    return MakePaged()


@pytest.fixture(scope="module")
def built() -> None:
    if native.MISSING is not None:
        pytest.skip(native.MISSING)


@pytest.fixture(params=["portable", "avx2", "avx512", "avx512_bf16"], scope="module")
def isa(request: pytest.FixtureRequest, built: None) -> Iterator[str]:  # noqa: ARG001
    """Every instruction set that this processor has, in turn."""
    try:
        yield native.use_isa(request.param)
    except RuntimeError as error:
        pytest.skip(str(error).partition("\n")[0])
    finally:
        native.use_isa("")
