"""Attention to some of the cache's blocks: in torch, which says what it means, and in C++ (csrc/block_choice.h).

Shape letters: S sequences, T tokens, N query heads, M key/value heads, G = N / M, H head size, B blocks per sequence,
K blocks of the cache, R = queries of a tile times G.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inference_pio.errors import ConfigError
from inference_pio.ops import native, reference
from inference_pio.ops.dispatch import serves
from inference_pio.ops.kept_heads import dequantize_heads

ROWS_PER_TILE = 192  # queries times heads of a group that read the same blocks
_FEW_QUERIES = (
    16  # of a sequence that decodes: its token and what is guessed ahead (RuntimeOptions.speculation)
)
_ALL = 2**62


@dataclass(frozen=True)
class Selection:
    """Which of the keys before them queries read; in tokens, rounded up to whole blocks of the cache.

    kind     "pages": besides the first and the last those blocks whose keys can have the largest products with the
             queries (Tang et al. 2024, "Quest"); "sinks": the first and the last alone (Xiao et al. 2023)
    sinks    of the sequence's beginning, read always: softmax needs somewhere to leave what it has over
    window   the last ones up to a query, its own included, read always
    decode   keys that a decoding sequence reads in all, `sinks` and `window` among them; None: every one
    prefill  the same for every tile of a prompt's queries; None: every one

    A sequence decodes where it has up to 16 tokens in a step and each of them is to be answered; of the last piece of a
    prompt only the last one is. Each of its queries chooses for itself, so that guessing ahead changes no result. Of a
    prompt those queries are taken together that lie next to each other, 64 of them where
    three heads share keys: they read the same blocks, and of those before them at least the first one's window.

    Raises:
        ConfigError: no budget for pages, one for sinks, or numbers that leave nothing to read.
    """

    kind: Literal["pages", "sinks"]
    sinks: int
    window: int
    decode: int | None = None
    prefill: int | None = None

    def __post_init__(self) -> None:
        budgets = [budget for budget in (self.decode, self.prefill) if budget is not None]
        if (self.kind == "pages") != bool(budgets):
            raise ConfigError("pages are chosen within a budget for decoding or for prompts; sinks have none")
        if self.sinks < 0 or self.window < 1:
            raise ConfigError(
                f"sinks are 0 or more and the window 1 or more, got {self.sinks}, {self.window}"
            )
        least = self.sinks + self.window
        if any(budget < least for budget in budgets):
            raise ConfigError(
                f"a budget of {min(budgets)} keys is less than sinks {self.sinks} + window {self.window} = {least}, "
                f"which are read always: give it at least {least}"
            )

    def rule(self) -> tuple[int, int, int]:
        """Sinks, and budgets of decoding and of prompts; for all keys a number that no sequence reaches."""
        if self.kind == "sinks":
            return self.sinks, 0, 0
        few, many = (_ALL if budget is None else budget for budget in (self.decode, self.prefill))
        return self.sinks, few, many

    def plan(self, first: int, block_size: int, *, decodes: bool) -> TilePlan:
        """What a tile reads whose first query stands at position `first`."""
        sinks, few, many = self.rule()
        budget = -(-(few if decodes else many) // block_size)
        end = max(0, first + 1 - self.window) // block_size
        head = min(-(-sinks // block_size), end)
        forced = head + first // block_size + 1 - end
        return TilePlan(head, end, min(max(0, budget - forced), end - head))

    def keys_read(self, position: int, block_size: int, *, decodes: bool = True) -> int:
        """Keys that a query at that position reads, the first of its tile."""
        plan = self.plan(position, block_size, decodes=decodes)
        return position + 1 - plan.left_out * block_size


@dataclass(frozen=True)
class TilePlan:
    """Blocks [0, sinks) and from `end` on are read, and `kept` of those between them."""

    sinks: int
    end: int
    kept: int

    @property
    def left_out(self) -> int:
        return self.end - self.sinks - self.kept


def sparse_attention(
    q_TNH: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables_SB: Tensor,
    query_start_S1: Tensor,
    seq_lens_S: Tensor,
    scale: float,
    selection: Selection,
    bounds_KM2H: Tensor | None = None,
    scales: Tensor | None = None,
    answered_R: Tensor | None = None,
) -> Tensor:
    """`paged_attention` over the blocks that `selection` leaves of each sequence, [T, N, H].

    A tile is up to 192 / G consecutive queries of a prompt, or one of a sequence that decodes, and the G heads that
    share a key/value head; it chooses for itself. A query's product with a key of block b is at most
    u(b) = Σ_h max(q_h · most_h(b), q_h · least_h(b)). Blocks are ranked by the max over the tile's rows of
    u(b) - max_b' u(b'), b' before the window, and of equal ones the first counts. No query sees what comes after it;
    a tile that leaves nothing out has the bits of `paged_attention`.

    `bounds` are [K, M, 2, H], largest and smallest values of each block's keys as they are stored, float32 or bfloat16
    (then rounded to nearest); those of the blocks that the call's queries lie in are computed here first. `answered`
    are the rows of q, int64 and ascending, that are to be answered; None: all.
    """
    if serves(q_TNH, "attention"):
        sinks, few, many = selection.rule()
        rule = [sinks, selection.window, few, many, _FEW_QUERIES]
        where = (block_tables_SB.contiguous(), query_start_S1, seq_lens_S)
        made: Tensor = native.call(
            "sparse_attention",
            q_TNH.contiguous(),
            k_cache,
            v_cache,
            *where,
            scale,
            scales,
            bounds_KM2H,
            answered_R,
            rule,
        )
        return made
    caches = (k_cache, v_cache, scales, bounds_KM2H)
    where = (block_tables_SB, query_start_S1, seq_lens_S)
    return _in_torch(q_TNH, caches, where, scale, selection, answered_R)


def _in_torch(
    q_TNH: Tensor,
    caches: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    where: tuple[Tensor, Tensor, Tensor],
    scale: float,
    selection: Selection,
    answered_R: Tensor | None,
) -> Tensor:
    k_cache, v_cache, scales, bounds_KM2H = caches
    tables_SB, starts, lengths = where[0], where[1].tolist(), where[2].tolist()
    block_size, group = k_cache.shape[2], q_TNH.shape[1] // k_cache.shape[1]
    o_TNH = torch.empty_like(q_TNH)
    answered = None if answered_R is None else frozenset(answered_R.tolist())
    for s, length in enumerate(lengths):
        if bounds_KM2H is not None:
            _bound(bounds_KM2H, k_cache, scales, tables_SB[s], length, starts[s + 1] - starts[s])
    for s, length in enumerate(lengths):
        queries = starts[s + 1] - starts[s]
        all_answered = answered is None or answered.issuperset(range(starts[s], starts[s + 1]))
        decodes = queries <= _FEW_QUERIES and all_answered
        per_tile = 1 if decodes else ROWS_PER_TILE // group
        for tile, head in _tiles(starts[s], starts[s + 1], max(1, per_tile), k_cache.shape[1]):
            first = length - queries + tile.start - starts[s]
            known = first + tile.stop - tile.start
            blocks = tables_SB[s, : -(-known // block_size)].long()
            plan = selection.plan(first, block_size, decodes=decodes)
            heads = slice(head * group, (head + 1) * group)
            q_RH = q_TNH[tile, heads].flatten(0, 1).float()
            kept = _choose(q_RH, blocks, plan, None if bounds_KM2H is None else bounds_KM2H[:, head].float())
            left = torch.tensor([known - plan.left_out * block_size])
            one = torch.tensor([0, tile.stop - tile.start])
            k, v = (cache[:, head : head + 1] for cache in (k_cache, v_cache))
            of_head = None if scales is None else scales[:, head : head + 1]
            o_TNH[tile, heads] = reference.paged_attention(
                q_TNH[tile, heads], k, v, kept[None], one, left, scale, len(q_TNH), known, of_head
            )
    return o_TNH


def _tiles(start: int, end: int, per_tile: int, num_kv_heads: int) -> Iterator[tuple[slice, int]]:
    """Rows of q that choose together, and their key/value head."""
    for first in range(start, end, per_tile):
        for head in range(num_kv_heads):
            yield slice(first, min(first + per_tile, end)), head


def _bound(
    bounds_KM2H: Tensor, k_cache: Tensor, scales: Tensor | None, blocks_B: Tensor, length: int, queries: int
) -> None:
    """Largest and smallest values of the keys in the blocks of a sequence's last `queries` tokens."""
    block_size = k_cache.shape[2]
    for i in range((length - queries) // block_size, -(-length // block_size)):
        block, count = int(blocks_B[i]), min(block_size, length - i * block_size)
        k_MLH = k_cache[block, :, :count]
        if scales is not None:
            k_MLH = dequantize_heads(k_MLH, scales[block, :, 0, :count])
        k_MLH = k_MLH.float()
        bounds_KM2H[block] = torch.stack((k_MLH.amax(dim=1), k_MLH.amin(dim=1)), dim=1).to(bounds_KM2H.dtype)


def _choose(q_RH: Tensor, blocks_B: Tensor, plan: TilePlan, bounds_K2H: Tensor | None) -> Tensor:
    """The blocks that a tile reads, in order."""
    places = torch.arange(len(blocks_B))
    kept = places[plan.sinks : plan.sinks + plan.kept]
    if plan.kept and plan.left_out:
        assert bounds_K2H is not None, "pages are chosen by the bounds of their keys"
        most_EH, least_EH = bounds_K2H[blocks_B[: plan.end]].unbind(1)
        u_RE = q_RH.clamp(min=0) @ most_EH.T + q_RH.clamp(max=0) @ least_EH.T
        rank_E = (u_RE - u_RE.amax(dim=1, keepdim=True)).amax(dim=0)
        order = rank_E[plan.sinks :].argsort(descending=True, stable=True)
        kept = order[: plan.kept].sort().values + plan.sinks
    return blocks_B[torch.cat((places[: plan.sinks], kept, places[plan.end :]))]
