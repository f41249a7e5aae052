"""One step over a paged cache, in the terms of a batch: what every attention module over keys and values does alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import KVCache
from inference_pio.errors import ConfigError
from inference_pio.plugin.batch import ForwardBatch

Attend = Callable[..., Tensor]


def rotate_and_store(
    qkv_TE: Tensor,
    batch: ForwardBatch,
    cos_sin: Tensor,
    cache: KVCache,
    heads: tuple[int, int],
    norms: ops.HeadNorms | None = None,
) -> Tensor:
    """Turned queries [T, heads, head_dim]; keys, turned, and values lie in the cache then (`ops.rope_and_cache`).

    Args:
        qkv_TE: [T, (heads + 2 · kv_heads) · head_dim], queries first.
        heads: of queries, and of keys and values.
        norms: of each head of queries and of keys, in front of the rotation.
    """
    kept = (cache.k, cache.v, batch.slot_mapping)
    return ops.rope_and_cache(qkv_TE, batch.positions, cos_sin, *kept, *heads, cache.scales, norms)


@dataclass(frozen=True)
class PagedAttention:
    """Queries over what their sequences have in the cache.

    prefill  how where a sequence has several new tokens (`ops.paged_attention`, or its reference)
    decode   how where each has one
    scale    what scores are multiplied with
    window   how many positions a query sees, its own included; None: all before it
    reads_all  keys before the window are read like all others, and then count for nothing
    selection  which blocks are read, where that is not all of them: an approximation, of layers without a window; the
               layer's cache has bounds if blocks are chosen by query

    Raises:
        ConfigError: a selection beside a window.
    """

    prefill: Attend
    decode: Attend
    scale: float
    window: int | None = None
    reads_all: bool = False
    selection: ops.Selection | None = None

    def __post_init__(self) -> None:
        if self.selection is not None and self.window is not None:
            raise ConfigError(
                f"a layer with a window of {self.window} reads nothing else: it has no selection"
            )

    def __call__(self, q_TNH: Tensor, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """[T, heads · head_dim], ready for the output projection."""
        where = (batch.block_tables, batch.query_start, batch.seq_lens)
        if self.selection is not None:
            chosen = (self.selection, cache.bounds, cache.scales, batch.last_token)
            return ops.sparse_attention(q_TNH, cache.k, cache.v, *where, self.scale, *chosen).flatten(1)
        attend = self.decode if batch.max_query_len == 1 else self.prefill
        longest = (batch.max_query_len, batch.max_seq_len)
        seen = (cache.scales, self.window, self.reads_all)
        return attend(q_TNH, cache.k, cache.v, *where, self.scale, *longest, *seen).flatten(1)
