"""Whether every block and slot is accounted for: what tests ask after each step. It looks into `BlockManager`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from inference_pio.engine.checks import ensure
from inference_pio.engine.sequence import Sequence

if TYPE_CHECKING:
    from inference_pio.engine.block_manager import BlockManager


def check_blocks(blocks: BlockManager, running: Collection[Sequence]) -> None:
    """Raise AssertionError unless every block and slot is accounted for exactly once."""
    held = Counter(block for sequence in running for block in sequence.block_table)
    ensure(all(blocks._holders[b] == held[b] for b in range(blocks.num_blocks)), "holders miscounted")
    free = [*blocks._blank, *blocks._idle, *held]
    ensure(sorted(free) == list(range(blocks.num_blocks)), "a block is lost or in two places")
    slots = [*blocks._slots, *(sequence.slot for sequence in running)]
    ensure(sorted(s for s in slots if s is not None) == list(range(len(blocks.tables))), "slot lost")
    ensure(len(blocks._idle) <= blocks._idle.most, "too many idle blocks")
    if blocks._index is not None:
        ensure(all(block in blocks._index for block in blocks._idle), "an idle block cannot be found")
        ensure(not any(block in blocks._index for block in blocks._blank), "a blank block can be found")
    if blocks._states is not None:
        blocks._states.check_integrity(blocks._index.digests if blocks._index is not None else ())
    ensure(not blocks.tables[blocks._slots].any(), "a free slot has blocks")
    for sequence in running:
        _check_sequence(blocks, sequence, held)


def _check_sequence(blocks: BlockManager, sequence: Sequence, held: Counter[int]) -> None:
    kept = sequence.num_computed_tokens - sequence.num_evicted_tokens
    table, full = sequence.block_table, kept // blocks.block_size
    row = blocks.tables[sequence.slot]
    ensure(row[: len(table)].tolist() == table and not row[len(table) :].any(), "block table differs")
    ensure(blocks._blocks_for(kept) == len(table), "blocks do not fit the tokens")
    ensure(sequence.num_computed_tokens < sequence.decision.at, "a decision about a sequence is overdue")
    ensure(all(held[block] == 1 for block in table[full:]), "a block that can be written to is shared")
    if blocks._index is None:
        return
    index = blocks._index
    ensure(not any(block in index for block in table[full:]), "a block is published before it is full")
    parent = sequence.block_digests[0] if sequence.block_digests else b""
    for i, digest in enumerate(sequence.block_digests[1:], 1):
        parent = blocks._digest(parent, sequence, i)
        ensure(parent == digest, "a digest is not that of its tokens")
    if sequence.num_evicted_tokens:
        known = [index.digest_of(block) for block in table if block in index]
        places = [sequence.block_digests.index(digest) for digest in known]
        ensure(places == sorted(set(places)), "blocks that stayed are out of order")
        return
    for block, digest in zip(table, sequence.block_digests, strict=False):
        if block in index:
            ensure(index.digest_of(block) == digest, "a block is known under another prefix")
