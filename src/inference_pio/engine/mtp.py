"""Drafts of the model's own layer for them: multi-token prediction (`plugin/drafting.py` has the mathematics).

Drafting costs passes of that layer, one after the other, and its tokens may come true more often than any repetition of
the text so far. Whether that pays is decided in `speculation.py`, with what `DepthAcceptance` has seen. Filling the
layer's cache, which every step does, costs two matrix products a token and is never left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_pio import ops
from inference_pio.engine.acceptance import LEAST_CHANCE
from inference_pio.engine.sampler import Sample
from inference_pio.engine.sequence import Sequence
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.drafting import DraftingModel

MOST_DRAFTS = 7  # of one sequence in one step: each costs a pass, and errors add up
# Chance of a draft whose predecessors were right, before anything is seen: a little less than what is published for
# the first one (DeepSeek-V3, section 5.4.3: 85 to 90 %), and falling.
_FIRST_GUESSES = (0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.5)
# In every step without such drafts, belief returns to them by this share: what was bad is tried again some time.
_FORGOTTEN = 1 / 1024

# What a run of right drafts says of one that was not made, beside what one that was made says of itself.
_HOPE = 0.25


class DepthAcceptance:
    """Rates by how many drafts lie before, moving averages. Unlike matches, drafts that are not made teach nothing."""

    def __init__(self, memory: int, start: DepthAcceptance | None = None) -> None:
        """`memory` is over how many drafts is averaged; `start` says what to believe at first."""
        self._rates: list[float] = [*_FIRST_GUESSES] if start is None else start._rates.copy()
        self._share = 1.0 / memory

    def record(self, drafted: int, accepted: int) -> None:
        """What became of one sequence's drafts. Those behind the first wrong one say nothing; that all were right
        speaks for further ones, a little, so that these are tried at all.
        """
        for depth in range(min(drafted, accepted + 1)):
            self._rates[depth] += ((depth < accepted) - self._rates[depth]) * self._share
        if accepted == drafted:
            for depth in range(drafted, MOST_DRAFTS):
                self._rates[depth] += (1 - self._rates[depth]) * self._share * _HOPE

    def forget(self) -> None:
        """A step went by without such drafts."""
        for depth, first in enumerate(_FIRST_GUESSES):
            self._rates[depth] += (first - self._rates[depth]) * _FORGOTTEN

    def chances(self, most: int) -> list[float]:
        """For each draft the probability that it and all before it are accepted, as far as they are worth a pass."""
        result, chance = [], 1.0
        for rate in self._rates[:most]:
            chance *= rate
            if chance < LEAST_CHANCE:
                break
            result.append(chance)
        return result


@dataclass(slots=True)
class _Row:
    """A sequence while it is drafted for: its tokens end at `position`, where `token` lies."""

    sequence: Sequence
    count: int
    position: int
    token: int


class Predictor:
    """Runs the drafting layer: it remembers every step, and drafts where it is asked to.

    Of each sequence the hidden state behind its last computed token is kept, by slot; that of a sequence that has begun
    anew, or behind a part that the prefix cache gave, is not known, and zeros take its place.
    """

    def __init__(self, model: DraftingModel, caches: Items[Any], block_size: int, max_num_seqs: int) -> None:
        self._model, self._caches, self._block_size = model, caches, block_size
        self._hidden_TD: Tensor | None = None  # of the step that has run last
        self._kept: Tensor | None = None  # [max_num_seqs, D]
        # Whose state it is, and the position of the token that it is behind.
        self._whose: list[tuple[Sequence, int] | None] = [None] * max_num_seqs

    def forward(self, batch: ForwardBatch) -> Tensor:
        """The model's logits of a step; its hidden states stay for `remember`."""
        logits, self._hidden_TD = self._model.forward_all(batch, self._caches)
        return logits

    @torch.inference_mode()
    def remember(
        self, scheduled: dict[Sequence, int], batch: ForwardBatch, drawn: dict[Sequence, list[Sample]]
    ) -> None:
        """Take in the step that `forward` has computed; `drawn` are the tokens that came of it."""
        hidden_TD, starts = self._hidden_TD, batch.query_start.tolist()
        assert hidden_TD is not None, "a step has run"
        slots = [_slot(sequence) for sequence in scheduled]
        before_TD = torch.cat((hidden_TD[:1], hidden_TD[:-1]))
        before_TD[starts[:-1]] = self._known(scheduled, hidden_TD)
        self._model.remember(before_TD, batch, self._caches)
        last = []
        for (sequence, count), start in zip(scheduled.items(), starts, strict=False):
            accepted = max(0, len(drawn.get(sequence, ())) - 1)
            last.append(start + count - 1 + accepted)
            self._whose[_slot(sequence)] = sequence, sequence.num_computed_tokens + count - 1 + accepted
        assert self._kept is not None, "made where known states are asked for"
        self._kept[slots] = hidden_TD[last]
        self._hidden_TD = None

    def knows(self, sequence: Sequence) -> bool:
        """Whether the hidden state behind its last computed token is kept. It is not behind what the prefix cache gave:
        where a sequence goes on after it was preempted, all but its last token may have come from there.
        """
        return self._whose[_slot(sequence)] == (sequence, sequence.num_computed_tokens - 1)

    @torch.inference_mode()
    def draft(self, counts: dict[Sequence, int], tables: NDArray[np.int32]) -> dict[Sequence, list[int]]:
        """So many tokens behind the last of each sequence, which is the only one that is not computed yet.

        Its blocks must cover them. What the passes leave in the cache is written again by the step that follows.
        """
        drafts: dict[Sequence, list[int]] = {sequence: [] for sequence in counts}
        rows = [_Row(s, count, s.num_tokens - 1, s.token_ids[-1]) for s, count in counts.items()]
        hidden_SD = self._known(counts, None)
        while rows:
            logits_SV, hidden_SD = self._model.draft(hidden_SD, self._batch(rows, tables), self._caches)
            for row, token in zip(rows, ops.row_max(logits_SV)[1].tolist(), strict=True):
                row.token = token
                row.position += 1
                drafts[row.sequence].append(token)
            going_on = [i for i, row in enumerate(rows) if len(drafts[row.sequence]) < row.count]
            if len(going_on) < len(rows):
                rows, hidden_SD = [rows[i] for i in going_on], hidden_SD[going_on]
        return drafts

    def _known(self, sequences: Iterable[Sequence], like_TD: Tensor | None) -> Tensor:
        """[S, D]: the hidden state behind the computed tokens of each, zeros where it is not known."""
        if self._kept is None:
            assert like_TD is not None, "a sequence is drafted for after its first step"
            self._kept = like_TD.new_zeros(len(self._whose), like_TD.shape[1])
        slots, unknown = [], []
        for row, sequence in enumerate(sequences):
            slots.append(_slot(sequence))
            if not self.knows(sequence):
                unknown.append(row)
        known_SD = self._kept[slots]
        if unknown:
            known_SD[unknown] = 0
        return known_SD

    def _batch(self, rows: list[_Row], tables: NDArray[np.int32]) -> ForwardBatch:
        """One token of each sequence, as in decoding."""
        assert self._kept is not None, "known states were asked for"
        size, device = self._block_size, self._kept.device
        positions = [row.position for row in rows]
        slots = [_slot(row.sequence) for row in rows]
        places = [row.sequence.block_table[row.position // size] * size + row.position % size for row in rows]
        longest = max(positions) + 1

        def tensor(values: Any, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(values, dtype=dtype).to(device)

        every = torch.arange(len(rows) + 1, device=device)
        return ForwardBatch(
            token_ids=tensor([row.token for row in rows], torch.int64),
            positions=tensor(positions, torch.int64),
            query_start=every.int(),
            seq_lens=tensor([position + 1 for position in positions], torch.int32),
            block_tables=tensor(tables[slots, : -(-longest // size)], torch.int32),
            slot_mapping=tensor(places, torch.int64),
            state_slots=None,
            last_token=every[:-1],
            max_query_len=1,
            max_seq_len=longest,
        )


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None, "only running sequences have hidden states"
    return sequence.slot
