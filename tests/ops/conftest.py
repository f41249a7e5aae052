"""Batches over a paged cache, made the way an engine makes them: shuffled blocks, garbage where nothing lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from inference_pio.ops import native


@dataclass(frozen=True)
class Paged:
    """One attention call; `k` and `v` hold each sequence's own keys and values, [length, M, H]."""

    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    block_tables: Tensor
    query_start: Tensor
    seq_lens: Tensor
    k: list[Tensor]
    v: list[Tensor]
    scale: float

    def call(self) -> tuple[object, ...]:
        queries = int(self.query_start.diff().max())
        where = (self.block_tables, self.query_start, self.seq_lens)
        return (self.q, self.k_cache, self.v_cache, *where, self.scale, queries, int(self.seq_lens.max()))

    def one(self, s: int, rows: int | None = None) -> tuple[object, ...]:
        """Sequence s alone, or only its first `rows` queries as if the others had not come yet."""
        start, end = self.query_start[s : s + 2].tolist()
        length = int(self.seq_lens[s])
        if rows is not None:
            length, end = length - (end - start - rows), start + rows
        starts = torch.tensor([0, end - start], dtype=torch.int32)
        lengths = torch.tensor([length], dtype=torch.int32)
        where = (self.block_tables[s : s + 1], starts, lengths)
        return (self.q[start:end], self.k_cache, self.v_cache, *where, self.scale, end - start, length)


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
    ) -> Paged:
        rng = torch.Generator().manual_seed(seed)
        num_heads, num_kv_heads = heads

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng).to(dtype)

        used = [-(-length // block_size) for length in lengths]
        shape = (sum(used) + 3, num_kv_heads, block_size, head_dim)
        k_cache, v_cache = (torch.full(shape, garbage, dtype=dtype) for _ in range(2))
        order = torch.randperm(shape[0], generator=rng).tolist()
        tables = torch.zeros(len(lengths), max(used) + 2, dtype=torch.int32)
        keys, values = [], []
        for s, length in enumerate(lengths):
            blocks = [order.pop() for _ in range(used[s])]
            tables[s, : used[s]] = torch.tensor(blocks, dtype=torch.int32)
            keys.append(randn(length, num_kv_heads, head_dim))
            values.append(randn(length, num_kv_heads, head_dim))
            for cache, rows in ((k_cache, keys[-1]), (v_cache, values[-1])):
                for at in range(length):
                    cache[blocks[at // block_size], :, at % block_size] = rows[at]
        starts = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
        q = randn(sum(queries), num_heads, head_dim)
        lens = torch.tensor(lengths, dtype=torch.int32)
        return Paged(q, k_cache, v_cache, tables, starts, lens, keys, values, head_dim**-0.5)


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
