"""Recurrent state between steps: snapshots for later requests to go on from, and drafts that count after all.

A state cannot be cut at a block's border as keys and values can. So copies of it are kept in slots of their own, each
behind a whole number of blocks, under the digest of that prefix: a request that begins with the same tokens takes the
blocks up to there and the copy. A copy costs what thousands of tokens of keys and values do, so there are few, taken
where somebody is likely to come back to (`PrefixPolicy.snapshots_at`).

A state of Qwen3-Coder-Next is 79 MB. Copying it moves 158 MB, and a decode step reads 2 GB of weights at 4 bits: once
in 32 tokens that is 0.3 % of the time. So the state of a running answer is copied at every border it passes, in place
of its copy at the border before.

For drafts there were three ways, by the same model's bytes for a step with one sequence and k drafts:

* a copy before the step (158 MB), and on a wrong draft going back to it and computing the right ones again: each of
  them another 0.8 GB of experts;
* the state behind every draft, as vLLM and SGLang keep it on GPUs: 79 MB written, and held, for each;
* what each draft would add to the state: 2.4 MB each. Those that count are added by reading and writing the state once
  more (158 MB), and where the first draft is wrong nothing is to be done.

The last one moves least from k = 2 on, holds least for any k, and is what `cache/specs.py`, StateMemory, asks for.

The same serves a snapshot inside a prompt: its last tokens, behind the last border, are computed in the step that
computes those before, and the state takes them in once it has been copied. A step of their own would read the weights
again, and with 16 tokens a fourth of all experts: 13 GB, where this moves 0.3 GB.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from collections.abc import Sequence as Items

import torch

from inference_pio.cache.specs import StateMemory
from inference_pio.engine.checks import ensure
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.plugin.facts import CutPoint


class StateSlots:
    """What running sequences go on from, and what of that is kept for others.

    Slots below `max_num_seqs` belong to running sequences (`Sequence.slot`), those behind to snapshots. A snapshot
    lives no longer than the block that ends where it does can be found: without blocks it is of no use to anybody.
    """

    def __init__(
        self, caches: Items[StateMemory], config: EngineConfig, snapshots_at: Collection[CutPoint]
    ) -> None:
        """`snapshots_at` is empty where prefixes are not reused."""
        self._caches = caches
        self._size = config.block_size
        self._snapshots_at = frozenset(snapshots_at)
        self._slots = range(config.max_num_seqs, config.max_num_seqs + config.num_snapshots)
        self._free = list(reversed(self._slots))
        self._slot_of: OrderedDict[bytes, int] = OrderedDict()  # by prefix; what was used last comes last
        self._latest: dict[Sequence, bytes] = {}  # of answers that go on
        self._next_draft: dict[Sequence, int] = {}
        if config.max_held:
            for cache in caches:
                cache.reserve(config.max_held)

    # Snapshots ---------------------------------------------------------------------------------------------------

    def longest(self, digests: Items[bytes]) -> int:
        """Behind how many of these blocks is the last snapshot; 0 where there is none."""
        return next((count for count in range(len(digests), 0, -1) if digests[count - 1] in self._slot_of), 0)

    def begin(self, sequence: Sequence, num_found: int) -> None:
        """Restore the state behind what it has in common with others, if anything, and plan its snapshots.

        `num_found` of its blocks were found, at least as many as it uses. A prompt is computed up to the last border
        in it and, before that, up to where it leaves what was found: a third request may have as much in common.
        """
        assert sequence.slot is not None, "it was given one"
        if sequence.num_computed_tokens:
            digest = sequence.block_digests[sequence.num_computed_tokens // self._size - 1]
            self._slot_of.move_to_end(digest)
            self._copy(self._slot_of[digest], sequence.slot)
        places: dict[CutPoint, int] = {
            "branch": num_found * self._size,
            "prompt": (sequence.num_tokens - 1) // self._size * self._size,
        }
        ahead = {place for kind, place in places.items() if kind in self._snapshots_at}
        sequence.cuts = tuple(sorted(place for place in ahead if place > sequence.num_computed_tokens))

    def keep(self, sequence: Sequence) -> None:
        """Take a snapshot if its computed tokens end at a place for one. The block before can be found already."""
        assert sequence.slot is not None, "it has just been computed"
        computed = sequence.num_computed_tokens
        answering = computed >= sequence.request.prompt_len
        wanted = computed in sequence.cuts or (answering and "answer" in self._snapshots_at)
        if computed % self._size or not wanted:
            return
        digest = sequence.block_digests[computed // self._size - 1]
        before = self._latest.pop(sequence, None) if answering else None
        if digest not in self._slot_of:
            # An answer's snapshots come and go: they take nothing from other answers that go on.
            spared = set(self._latest.values()) if answering else set()
            if before is not None:
                self.drop(before)
            if not self._free:
                oldest = next((each for each in self._slot_of if each not in spared), None)
                if oldest is None:
                    return
                self.drop(oldest)
            slot = self._free.pop()
            self._copy(sequence.slot, slot)
            self._slot_of[digest] = slot
        self._slot_of.move_to_end(digest)
        if answering:
            self._latest[sequence] = digest

    def drop(self, digest: bytes) -> None:
        """Forget the snapshot of a prefix, if there is one."""
        slot = self._slot_of.pop(digest, None)
        if slot is not None:
            self._free.append(slot)

    def clear(self) -> None:
        """Forget all snapshots."""
        for digest in list(self._slot_of):
            self.drop(digest)

    def end(self, sequence: Sequence) -> None:
        """The sequence is finished: its last snapshot grows old like any other."""
        self._latest.pop(sequence, None)

    # Drafts ------------------------------------------------------------------------------------------------------

    def expect(self, scheduled: Items[Sequence], drafts: Drafts) -> None:
        """Of the step that comes, number what states wait in front of, as layers do."""
        self._next_draft.clear()
        first = 0
        for sequence in scheduled:
            self._next_draft[sequence] = first
            first += len(drafts.get(sequence, ())) or sequence.num_held

    def commit(self, sequence: Sequence, accepted: int) -> Iterator[int]:
        """Bring its state behind accepted drafts, or what it was held in front of; up to a block's border at first, for
        a snapshot to be taken.

        Yields how many tokens the state has moved on each time. A finished answer needs no state behind the border.
        """
        start = sequence.num_computed_tokens
        border = (start + accepted) // self._size * self._size
        for end in sorted({max(start, border), start + accepted} - {start}):
            count = end - start
            if sequence.finish_reason is None or end == border:
                self._take(sequence, count)
            start = end
            yield count

    @torch.inference_mode()
    def _take(self, sequence: Sequence, count: int) -> None:
        assert sequence.slot is not None, "it has just been computed"
        first = self._next_draft[sequence]
        for cache in self._caches:
            cache.commit(sequence.slot, first, count)
        self._next_draft[sequence] = first + count

    @torch.inference_mode()
    def _copy(self, source: int, target: int) -> None:
        for cache in self._caches:
            cache.copy(source, target)

    def check_integrity(self, known: Collection[bytes]) -> None:
        """Raise AssertionError unless every slot is accounted for and every snapshot is of a prefix in `known`."""
        ensure(sorted([*self._free, *self._slot_of.values()]) == list(self._slots), "snapshot slot lost")
        ensure(all(sequence.finish_reason is None for sequence in self._latest), "an answer has not ended")
        ensure(all(digest in known for digest in self._slot_of), "a snapshot outlives its blocks")
