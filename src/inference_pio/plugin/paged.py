"""One step over a paged cache, in the terms of a batch: what every attention module over keys and values does alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import CacheSpec, KVCache, PagedKV
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
    grouped  queries that share keys and values go through them together; else each goes through them by itself
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
    grouped: bool = False

    def __post_init__(self) -> None:
        if self.selection is not None and self.window is not None:
            raise ConfigError(
                f"a layer with a window of {self.window} reads nothing else: it has no selection"
            )

    def __call__(self, q_TNH: Tensor, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """[T, heads · head_dim], ready for the output projection."""
        if batch.observer is not None:
            batch.observer(q_TNH, cache, self.scale, self.window)
        where = (batch.block_tables, batch.query_start, batch.seq_lens)
        if self.selection is not None:
            return ops.sparse_attention(
                q_TNH,
                cache.k,
                cache.v,
                *where,
                self.scale,
                self.selection,
                cache.bounds,
                cache.scales,
                batch.last_token,
            ).flatten(1)
        attend = self.decode if batch.max_query_len == 1 else self.prefill
        longest = (batch.max_query_len, batch.max_seq_len)
        kept = (cache.k, cache.v, *where, self.scale, *longest, cache.scales, self.window, self.reads_all)
        if self.grouped or q_TNH.shape[1] == cache.k.shape[1]:
            return attend(q_TNH, *kept).flatten(1)
        # [T, M, G, H]: the first query of every group, then the second, …
        q_TMGH = q_TNH.unflatten(1, (cache.k.shape[1], -1))
        one_each = [attend(q_TMH.contiguous(), *kept) for q_TMH in q_TMGH.unbind(2)]
        return torch.stack(one_each, 2).flatten(1)


def attending(model: nn.Module) -> Iterator[tuple[nn.Module, PagedAttention]]:
    """Each module that attends over a paged cache, in the order of the layers, and how (its attribute `attend`)."""
    for module in model.modules():
        how = getattr(module, "attend", None)
        if isinstance(how, PagedAttention):
            yield module, how


def widest_window(model: nn.Module, specs: Sequence[CacheSpec]) -> int:
    """Tokens that the widest of a model's sliding windows sees; 0 where it has none.

    Raises:
        ConfigError: tokens of this model cannot be evicted from the cache.
    """
    windows = [how.window for _, how in attending(model)]
    if not all(isinstance(spec, PagedKV) for spec in specs) or len(windows) != len(specs):
        raise ConfigError(
            "tokens are evicted where each layer keeps keys and values that `PagedAttention` reads; this model keeps "
            f"latents or state, or attends in another way in {len(specs) - len(windows)} of {len(specs)} layers"
        )
    if None not in windows:
        raise ConfigError(
            "tokens are evicted where a layer sees all of them; this model's see a window alone"
        )
    return max(window or 0 for window in windows)
