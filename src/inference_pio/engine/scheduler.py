"""Which sequences run in the next step, and with how many tokens."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter

from inference_pio.engine.block_manager import BlockManager
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.sequence import Sequence

_ARRIVAL = attrgetter("arrival")


class Scheduler:
    """Continuous batching, first come first served (Orca, Yu et al. 2022), with chunked prefill (Sarathi-Serve,
    Agrawal et al. 2024).

    A step has room for `max_num_batched_tokens`. Decoding sequences come first, one token each; then prompts that
    are being computed; then new ones as long as slots and blocks last. When a running sequence gets no block, the
    newest running one gives all of its blocks back and is computed again later from its tokens, which are kept.
    Answers to one prompt wait until the first of them has computed the prompt, if they can then share its blocks.
    """

    def __init__(self, config: EngineConfig, blocks: BlockManager) -> None:
        self._budget = config.max_num_batched_tokens
        self._recompute = config.recompute
        self._blocks = blocks
        self._most_to_hold = self._room_to_hold = config.max_behind
        self._followers: dict[Sequence, list[Sequence]] = {}
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0

    @property
    def num_waiting(self) -> int:
        # A list first: other threads ask for this while the dictionary changes.
        return len(self.waiting) + sum(map(len, list(self._followers.values())))

    def add(self, sequences: list[Sequence]) -> None:
        """Queue all answers to one prompt."""
        leader, *followers = sequences
        insort(self.waiting, leader, key=_ARRIVAL)
        if followers and self._blocks.can_share(leader.request.prompt_len):
            self._followers[leader] = followers
        else:
            self.waiting.extend(followers)

    def schedule(self) -> dict[Sequence, int]:
        """Sequences of the next step with the number of tokens to compute for each (`num_scheduled_tokens`)."""
        scheduled: dict[Sequence, int] = {}
        self._room_to_hold = self._most_to_hold
        preemptions, budget = self.num_preemptions, self._budget
        decoding = [s for s in self.running if s.num_tokens - s.num_computed_tokens == 1]
        prefilling = [s for s in self.running if s.num_tokens - s.num_computed_tokens > 1]
        for sequence in (*decoding, *prefilling):
            if budget > 0 and sequence.slot is not None:
                budget -= self._keep_running(sequence, budget, scheduled)
        if self.num_preemptions == preemptions:
            self._admit(budget, scheduled)
        return scheduled

    def advance(self, scheduled: dict[Sequence, int]) -> None:
        """The step has run: its tokens are in the cache."""
        for sequence, num_tokens in scheduled.items():
            if self._recompute and sequence.num_computed_tokens + num_tokens >= sequence.num_tokens:
                self._set_aside(sequence)
                continue
            sequence.num_computed_tokens += num_tokens - sequence.num_held
            self._blocks.publish(sequence)
            if sequence.num_held:
                self._blocks.accept(sequence, sequence.num_held)
            if self._followers and sequence.num_computed_tokens >= sequence.request.prompt_len:
                self._release_followers(sequence)

    def accept(self, sequence: Sequence, num_drafts: int) -> None:
        """The first `num_drafts` of its drafts have become its tokens; of the others nothing stays."""
        self._blocks.accept(sequence, num_drafts)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is finished, aborted or failed: give back what it holds, whatever state it is in."""
        if sequence.slot is not None:
            self.running.remove(sequence)
            self._blocks.release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            leader = sequence.request.sequences[0]
            if leader in self._followers:
                self._followers[leader].remove(sequence)
        self._release_followers(sequence)

    def _release_followers(self, leader: Sequence) -> None:
        for follower in self._followers.pop(leader, ()):
            insort(self.waiting, follower, key=_ARRIVAL)

    def _keep_running(self, sequence: Sequence, budget: int, scheduled: dict[Sequence, int]) -> int:
        """Schedule a running sequence, at the cost of newer ones if need be; returns for how many tokens."""
        num_tokens = self._next_tokens(sequence, budget)
        while not self._blocks.grow(sequence, sequence.num_computed_tokens + num_tokens):
            victim = self.running[-1]
            scheduled.pop(victim, None)
            self._preempt(victim)
            if victim is sequence:
                return 0
        scheduled[sequence] = num_tokens
        return num_tokens

    def _preempt(self, victim: Sequence) -> None:
        self.num_preemptions += 1
        self._set_aside(victim)

    def _set_aside(self, sequence: Sequence) -> None:
        """Let it wait, without blocks; it is computed again from its tokens."""
        self.running.remove(sequence)
        self._blocks.release(sequence)
        insort(self.waiting, sequence, key=_ARRIVAL)

    def _admit(self, budget: int, scheduled: dict[Sequence, int]) -> None:
        while budget > 0 and self.waiting and self._blocks.admit(self.waiting[0]):
            sequence = self.waiting.pop(0)
            if sequence.num_cached_tokens is None:
                sequence.num_cached_tokens = sequence.num_computed_tokens
                self.num_cached_tokens += sequence.num_computed_tokens
                self.num_prompt_tokens += sequence.request.prompt_len
            num_tokens = self._next_tokens(sequence, budget)
            self._blocks.grow(sequence, sequence.num_computed_tokens + num_tokens)
            insort(self.running, sequence, key=_ARRIVAL)
            scheduled[sequence] = num_tokens
            budget -= num_tokens

    def _next_tokens(self, sequence: Sequence, budget: int) -> int:
        """How many of its known tokens to compute: what the budget allows, up to the next decision about its blocks.

        Where a snapshot is due on the way, the state waits there while the step computes what lies behind, as long as
        that is little (`EngineConfig.max_behind`, of all sequences); else the step ends there. A step less is worth
        it: each reads the weights again.
        """
        start = sequence.num_computed_tokens
        end = min(sequence.num_tokens, start + budget, sequence.decision.at)
        cut = min((cut for cut in sequence.cuts if start < cut < end), default=end)
        sequence.num_held = end - cut
        if sequence.num_held > self._room_to_hold:
            sequence.num_held, end = 0, cut
        self._room_to_hold -= sequence.num_held
        return end - start
