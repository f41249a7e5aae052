"""Who owns which cache block and which slot."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from inference_pio.cache.prefix_index import PrefixIndex
from inference_pio.engine.block_integrity import check_blocks
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.explaining import PrefixHistory
from inference_pio.engine.idle_blocks import IdleBlocks
from inference_pio.engine.media import prefix_part
from inference_pio.engine.sequence import Sequence
from inference_pio.engine.state_slots import StateSlots
from inference_pio.engine.tiering import TierSide
from inference_pio.outputs import CacheExplanation


class BlockManager:
    """Hands out blocks and slots, and shares full blocks of equal prefixes between sequences.

    A block is blank, idle (held by nobody, kept for its contents; `IdleBlocks` says which goes first) or held by one
    or more sequences. Only full blocks are ever shared, and nothing is written to a full block: a block has one writer
    at most, so sharing needs no copies.

    `tables` [max_num_seqs, blocks_per_sequence] int32 has the block table of each slot's sequence, 0 behind its end.
    """

    def __init__(
        self,
        config: EngineConfig,
        index: PrefixIndex | None,
        states: StateSlots | None,
        tier: TierSide | None = None,
        history: PrefixHistory | None = None,
    ) -> None:
        """`index` is None where prefixes must not be reused, `states` where no layer keeps state, `tier` where blocks
        that memory has no room for go, `history` where it is to be said why a prefix was not found.
        """
        self.block_size = config.block_size
        self.num_blocks = config.num_blocks
        self._policy = config.eviction
        self.tables: NDArray[np.int32] = np.zeros((config.max_num_seqs, config.blocks_per_sequence), np.int32)
        self._index = index
        self._states = states
        self._tier = tier
        self._history = history
        most = config.prefix_cache_max_blocks
        self._idle = IdleBlocks(config.num_blocks, config.num_blocks if most is None else most)
        self._slots = list(range(config.max_num_seqs))
        # Last out, first in again: memory that was never used stays untouched, and what was just used is in caches.
        self._blank = list(reversed(range(config.num_blocks)))
        self._holders = [0] * config.num_blocks

    @property
    def num_free_blocks(self) -> int:
        return len(self._blank) + len(self._idle)

    @property
    def num_loaded_tokens(self) -> int:
        """That came back from the tier below."""
        return self._tier.num_loaded * self.block_size if self._tier is not None else 0

    def can_share(self, prompt_len: int) -> bool:
        """Whether a second sequence with this prompt would find any of it in the cache."""
        return self._index is not None and prompt_len > self.block_size

    def admit(self, sequence: Sequence) -> bool:
        """Give it a slot and the blocks of its prefix that are cached, if there is room for all its known tokens.

        At least one token is left to compute: without it there would be no logits to sample from. So are all tokens
        that are watched in front of a decision (`eviction.py`).
        """
        if not self._slots:
            return False
        self._plan(sequence)
        found = self._find_prefix(sequence)
        cached = found
        if self._states is not None:
            cached = found[: self._states.longest(sequence.block_digests[: len(found)])]
        idle = sum(1 for block in cached if self._holders[block] == 0)
        most = min(sequence.num_tokens, sequence.decision.at)
        if self._blocks_for(most) - len(cached) > self.num_free_blocks - idle:
            return False
        sequence.slot = self._slots.pop()
        is_new = (
            sequence.num_cached_tokens is None and sequence.index == 0
        )  # not preempted, not its request's second
        for block in cached:
            if self._holders[block] == 0:
                self._idle.remove(block)
            if is_new:
                self._idle.found(block)
            self._hold(sequence, block)
        sequence.num_shared_blocks = len(cached)
        if self._tier is not None:
            self._load(sequence, self._tier)
        sequence.num_computed_tokens = sequence.num_shared_blocks * self.block_size
        if self._states is not None:
            self._states.begin(sequence, len(found))
        if self._history is not None and is_new:
            self._explain(sequence, len(found), self._history)
        return True

    def grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Make the block table cover `num_tokens` tokens; False, and nothing done, if there are not enough blocks."""
        missing = self._blocks_of(sequence, num_tokens) - len(sequence.block_table)
        if missing > self.num_free_blocks:
            return False
        for _ in range(missing):
            self._hold(sequence, self._take_block(sequence))
        return True

    def make_room(self, sequence: Sequence, num_drafts: int) -> int:
        """Let its blocks cover drafts behind its known tokens; how many they do cover if no more can be had."""
        if self.grow(sequence, sequence.num_tokens + num_drafts):
            return num_drafts
        covered = sequence.num_evicted_tokens + len(sequence.block_table) * self.block_size
        return min(num_drafts, covered - sequence.num_tokens)

    def accept(self, sequence: Sequence, num_drafts: int) -> None:
        """Its first `num_drafts` drafts, tokens by now, count as computed; of the others nothing stays."""
        moves = (num_drafts,) if self._states is None else self._states.commit(sequence, num_drafts)
        for count in moves:
            sequence.num_computed_tokens += count
            self.publish(sequence)
        self.trim(sequence)

    def trim(self, sequence: Sequence) -> None:
        """Take back the blocks behind its computed tokens, which only drafts that were not accepted had needed."""
        table = sequence.block_table
        while len(table) > self._blocks_of(sequence, sequence.num_computed_tokens):
            self._let_go(table.pop(), sequence)
            self.tables[sequence.slot, len(table)] = 0

    def publish(self, sequence: Sequence) -> None:
        """Let later sequences find the blocks that have become full, and the state behind them if it is kept.

        A prefix's digest says that each of its tokens has seen all before it. Of a sequence that has evicted some
        this is not so any more: nothing that it computes from then on is shared.
        """
        full = sequence.num_computed_tokens // self.block_size
        if self._index is None or full <= sequence.num_shared_blocks or sequence.num_evicted_tokens:
            return
        self._extend_digests(sequence, full)
        for i in range(sequence.num_shared_blocks, full):
            if self._index.insert(sequence.block_digests[i], sequence.block_table[i]):
                self._published(sequence, i)
        sequence.num_shared_blocks = full
        if self._states is not None:
            self._states.keep(sequence)

    def evict(self, sequence: Sequence, stay: list[int]) -> None:
        """Keep these places of its block table, in order, and give up its hold on the others, which are full.

        What others hold, or the prefix cache keeps, lives on.
        """
        table = sequence.block_table
        lost = sorted(set(range(len(table))).difference(stay))
        kept = [table[place] for place in stay]
        row = self.tables[sequence.slot]
        row[: len(table)] = 0
        row[: len(kept)] = kept
        for place in reversed(lost):
            self._let_go(table[place], sequence)
        table[:] = kept
        sequence.num_evicted_tokens += len(lost) * self.block_size
        self._plan(sequence)

    def release(self, sequence: Sequence) -> None:
        """Take back slot and blocks; its tokens stay, so that it can be computed again."""
        if sequence.slot is None:
            return
        self.tables[sequence.slot, : len(sequence.block_table)] = 0
        self._slots.append(sequence.slot)
        # The end of a sequence is of less use to others than its beginning: let it grow old first.
        for block in reversed(sequence.block_table):
            self._let_go(block, sequence)
        sequence.slot = None
        sequence.block_table = []
        sequence.num_shared_blocks = 0
        sequence.num_computed_tokens = 0
        sequence.num_evicted_tokens = 0
        sequence.votes = []

    def forget(self) -> int:
        """Empty the prefix cache; running sequences go on. Returns how many blocks could have been found."""
        if self._index is None:
            return 0
        known = len(self._index)
        if self._tier is not None:
            self._tier.tier.forget()
        self._index.clear(self._tier.tier.generation if self._tier is not None else None)
        if self._states is not None:
            self._states.clear()
        if self._history is not None:
            self._history.clear()
        self._blank.extend(self._idle)
        self._idle.clear()
        return known

    def close(self) -> None:
        """Leave what can be found to the tier below, as much as it takes, the best last; nothing may follow."""
        if self._index is None or self._tier is None:
            return
        idle = [self._idle.pop() for _ in range(len(self._idle))]
        held = [block for block in map(self._index.block_of, self._index.digests) if self._holders[block]]
        for block in [*idle, *held][-self._tier.most_blocks :]:
            self._tier.let_go(block, self._index.digest_of(block), wait=True)
        self._tier.tier.close()

    def check_integrity(self, running: Collection[Sequence]) -> None:
        """Raise AssertionError unless every block and slot is accounted for exactly once."""
        check_blocks(self, running)

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _blocks_of(self, sequence: Sequence, num_tokens: int) -> int:
        """Blocks that it holds when `num_tokens` of its tokens are computed."""
        return self._blocks_for(num_tokens - sequence.num_evicted_tokens)

    def _plan(self, sequence: Sequence) -> None:
        """Say when a decision about it is due next."""
        sequence.votes = []
        if self._policy is not None:
            lengths = (sequence.request.prompt_len, sequence.request.max_len)
            done = (sequence.num_computed_tokens, sequence.num_evicted_tokens)
            sequence.decision = self._policy.next(*lengths, *done, self.num_blocks * self.block_size)

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        if self._index is None:
            return []
        full = min(sequence.num_tokens - 1, sequence.decision.watched_from) // self.block_size
        self._extend_digests(sequence, full)
        blocks: list[int] = []
        for digest in sequence.block_digests[:full]:
            block = self._index.find(digest)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _explain(self, sequence: Sequence, num_found: int, history: PrefixHistory) -> None:
        if self._index is None:
            sequence.explanation = CacheExplanation("off", sequence.num_tokens, 0, self.block_size, 0)
            return
        parent = self._parent(sequence, sequence.num_shared_blocks)
        sequence.explanation = history.explain(sequence, parent, num_found)
        history.remember(sequence)

    def _load(self, sequence: Sequence, tier: TierSide) -> None:
        """Bring back from the tier below what goes on where memory ends; there is room for all known tokens."""
        assert self._index is not None
        most = min(sequence.num_tokens - 1, sequence.decision.watched_from)  # as in `_find_prefix`
        first, full = sequence.num_shared_blocks, most // self.block_size
        contents = tier.find(self._parent(sequence, first), sequence.block_digests[first:full])
        for i, data in enumerate(contents, first):
            self._hold(sequence, self._take_block(sequence))
            tier.fill(sequence.block_table[i], data)
            if self._index.insert(sequence.block_digests[i], sequence.block_table[i]):
                self._published(sequence, i)
            sequence.num_shared_blocks = i + 1

    def _published(self, sequence: Sequence, i: int) -> None:
        """Its i-th block can be found from now on."""
        block = sequence.block_table[i]
        self._idle.new(block)
        if self._tier is not None:
            token_ids = sequence.token_ids[i * self.block_size : (i + 1) * self.block_size]
            self._tier.published(block, self._parent(sequence, i), token_ids)

    def _parent(self, sequence: Sequence, i: int) -> bytes:
        """Digest of what comes before its i-th block."""
        assert self._index is not None
        return sequence.block_digests[i - 1] if i else self._index.root

    def _extend_digests(self, sequence: Sequence, full: int) -> None:
        assert self._index is not None
        digests = sequence.block_digests
        for i in range(len(digests), full):
            digests.append(self._digest(self._parent(sequence, i), sequence, i))

    def _digest(self, parent: bytes, sequence: Sequence, block: int) -> bytes:
        assert self._index is not None
        start, end = block * self.block_size, (block + 1) * self.block_size
        media = prefix_part(sequence.request.media, start, end)
        return self._index.digest(parent, sequence.token_ids[start:end], media)

    def _hold(self, sequence: Sequence, block: int) -> None:
        self._holders[block] += 1
        self.tables[sequence.slot, len(sequence.block_table)] = block
        sequence.block_table.append(block)

    def _take_block(self, sequence: Sequence) -> int:
        if self._blank:
            return self._blank.pop()
        return self._evict(sequence)

    def _let_go(self, block: int, sequence: Sequence) -> None:
        self._holders[block] -= 1
        if self._holders[block]:
            return
        if self._index is None or block not in self._index:
            self._blank.append(block)
            return
        self._idle.add(block)
        if len(self._idle) > self._idle.most:
            self._blank.append(self._evict(sequence))

    def _evict(self, cause: Sequence) -> int:
        block = self._idle.pop()
        assert self._index is not None
        if self._tier is not None:
            self._tier.let_go(block, self._index.digest_of(block))
        if self._history is not None:
            self._history.forgotten(self._index.digest_of(block), cause.request.request_id)
        if self._states is not None:
            self._states.drop(self._index.digest_of(block))
        self._index.remove(block)
        return block
