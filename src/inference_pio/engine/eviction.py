"""Eviction of cached tokens by attention mass, in whole blocks.

When a decision about a sequence is due (`cache/retention.py`), the queries of its last tokens vote for the blocks that
they attend to (SnapKV, Li et al. 2024; H2O, Zhang et al. 2023, lets all queries vote). Blocks with little attention are
given up, for good: tokens that are computed later do not see them. All layers and heads share one block table, so there
is one decision for all of them, in which a single head that looks at a block for a reason must be heard: of each layer
counts the head that attends to a block most, and of all layers the mean.

Rotary positions of the tokens that stay are what they were. The first blocks always stay, and the last ones, so that
what a sliding window sees is always whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.cache.retention import EvictionPolicy
from inference_pio.cache.specs import KVCache
from inference_pio.engine.block_manager import BlockManager
from inference_pio.engine.sequence import Sequence
from inference_pio.plugin.batch import ForwardBatch


@dataclass(frozen=True)
class _Voter:
    """Rows of a step that belong to one sequence, whose attention is watched.

    blocks  [B] int32, those that the sequence holds up to the last of the rows
    length  tokens of the sequence in the cache up to there
    votes   of the sequence, one for each layer that has voted: float32 [N, blocks at the decision]
    """

    rows: slice
    blocks: Tensor
    length: int
    votes: list[Tensor]
    num_blocks: int


class _Observer:
    """Takes the votes of one step: it is called by each layer in turn."""

    def __init__(self, voters: list[_Voter]) -> None:
        self._voters, self._layer = voters, 0

    def __call__(self, q_TNH: Tensor, cache: KVCache, scale: float, window: int | None) -> None:
        if window is not None:  # what such a layer sees always stays
            return
        for voter in self._voters:
            mass_WNB = ops.attention_mass(
                q_TNH[voter.rows], cache.k, voter.blocks, voter.length, scale, cache.scales
            )
            if len(voter.votes) == self._layer:
                voter.votes.append(mass_WNB.new_zeros(mass_WNB.shape[1], voter.num_blocks))
            for mass_NB in mass_WNB:  # one by one: sums must not depend on how many rows a step has
                voter.votes[self._layer][:, : mass_NB.shape[1]] += mass_NB
        self._layer += 1


class Eviction:
    """Watches how sequences attend in front of a decision about them, and decides."""

    def __init__(self, policy: EvictionPolicy, blocks: BlockManager, window: int) -> None:
        """`window` is what `plugin.paged.widest_window` gives. Raises ConfigError: the policy keeps too little."""
        policy.check(blocks.block_size, window)
        self.num_evicted_tokens = 0
        self._blocks, self._block_size = blocks, blocks.block_size
        self._sinks = -(-policy.sinks // self._block_size)
        self._recent = policy.recent_of(window)
        self._kept = policy.kept(self._block_size) // self._block_size

    def watch(self, batch: ForwardBatch, scheduled: dict[Sequence, int]) -> ForwardBatch:
        """The step with an observer, where one of its sequences is about to be decided about."""
        voters = []
        for place, (sequence, num_tokens) in enumerate(scheduled.items()):
            start, end = sequence.num_computed_tokens, sequence.num_computed_tokens + num_tokens
            first = max(start, sequence.decision.watched_from)
            if first < end:
                row = int(batch.query_start[place])
                length = end - sequence.num_evicted_tokens
                held = batch.block_tables[place, : self._count(length)]
                at_decision = self._count(sequence.decision.at - sequence.num_evicted_tokens)
                rows = slice(row + first - start, row + end - start)
                voters.append(_Voter(rows, held, length, sequence.votes, at_decision))
        return replace(batch, observer=_Observer(voters)) if voters else batch

    def decide(self, scheduled: Iterable[Sequence]) -> None:
        """After a step: about those sequences of it about which a decision is due."""
        for sequence in scheduled:
            if sequence.slot is not None and sequence.num_computed_tokens == sequence.decision.at:
                before = sequence.num_evicted_tokens
                self._blocks.evict(sequence, self._stay(sequence))
                self.num_evicted_tokens += sequence.num_evicted_tokens - before

    def _stay(self, sequence: Sequence) -> list[int]:
        """Places in its block table of those that stay."""
        held = len(sequence.block_table)
        last = (sequence.num_computed_tokens - sequence.num_evicted_tokens - self._recent) // self._block_size
        undecided = range(self._sinks, last)
        room = self._kept - (held - len(undecided))
        if room >= len(undecided):
            return list(range(held))
        scores = _scores(torch.stack(sequence.votes)[:, :, undecided.start : undecided.stop])
        best = scores.topk(room).indices + undecided.start
        return sorted([*range(undecided.start), *best.tolist(), *range(undecided.stop, held)])

    def _count(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)


def _scores(votes_KNB: Tensor) -> Tensor:
    """[B]: what K layers' N heads think of each block. One head of many may be the one that retrieves (Wu et al. 2024),
    and would hardly count in a mean.
    """
    return votes_KNB.amax(dim=1).mean(dim=0)
