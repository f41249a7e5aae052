"""One step as the model sees it: every scheduled token of every sequence, flattened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from inference_pio.cache.specs import KVCache
from inference_pio.plugin.media import MediaRows


class AttentionObserver(Protocol):
    """Sees the queries of a layer, [T, N, H] as it multiplies them with the keys, and its cache, those of this step in
    it; `scale` and `window` as in `ops.paged_attention`.
    """

    def __call__(self, q_TNH: Tensor, cache: KVCache, scale: float, window: int | None) -> None: ...


@dataclass(frozen=True)
class ForwardBatch:
    """T tokens of S sequences; sequence s owns rows query_start[s] to query_start[s + 1].

    token_ids     [T] int64
    positions     [T] int64, 0-based within the sequence
    query_start   [S + 1] int32
    seq_lens      [S] int32, tokens in the cache once this step has run: of a sequence that has evicted some, fewer than
                  its last position says
    block_tables  [S, B] int32, padded with 0 behind each sequence's last block
    slot_mapping  [T] int64, block * block_size + offset of each token
    state_slots   [S] int64, the slot of each sequence's recurrent state; None where no layer keeps state
    drafts        [S] int32, how many of each sequence's last rows its state must not take in, never all: drafts, and
                  what lies behind a snapshot's place; the engine commits them afterwards (`cache/specs.py`,
                  StateMemory); None where no layer keeps state or there are none
    last_token    [R] int64, the rows that need logits, in order; several of a sequence where tokens were guessed
    max_query_len, max_seq_len: largest of each, as numbers, so that no layer has to look into a tensor
    media         rows that images fill; None where the step has none
    observer      told by each attention layer what it attends with; None in almost every step
    rope_positions [3, T] int64, time, height and width of each token, for models that rotate by them, or [1, T] where
                  all three are equal for every token of the step; None for models that rotate by `positions`
    hidden_only   a `HeadedModel` gives final hidden states [R, D]: the engine runs its head on some of them at a time
    """

    token_ids: Tensor
    positions: Tensor
    query_start: Tensor
    seq_lens: Tensor
    block_tables: Tensor
    slot_mapping: Tensor
    state_slots: Tensor | None
    last_token: Tensor
    max_query_len: int
    max_seq_len: int
    media: MediaRows | None = None
    rope_positions: Tensor | None = None
    drafts: Tensor | None = None
    observer: AttentionObserver | None = None
    hidden_only: bool = False
