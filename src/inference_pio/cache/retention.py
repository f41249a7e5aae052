"""How many tokens of a sequence stay in the cache, and at which of its tokens that is decided: numbers alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NamedTuple

from inference_pio.errors import ConfigError

_STRIDES_PER_BUDGET = 16


class Decision(NamedTuple):
    """Between two steps of a sequence some of its blocks are given up: when it has `at` computed tokens. What it
    attends to is watched from token `watched_from` on.
    """

    at: int
    watched_from: int


NEVER = Decision(sys.maxsize, sys.maxsize)


@dataclass(frozen=True, kw_only=True)
class EvictionPolicy:
    """Of each sequence at most `budget` tokens stay in the cache once its prompt is computed.

    Where a decision is due depends on the numbers of tokens alone and on nothing else that runs, so that a sequence
    that is computed again, or in other chunks, comes to the same decisions.

    Args:
        budget: tokens of one sequence; a longer prompt is cut down to it when its last token is computed, by what that
            end of it attends to, or before, each time that the cache would not hold more of it.
        sinks: tokens at its beginning that always stay: they take the attention that nothing else gets (Xiao et al.
            2024).
        recent: tokens at its end that always stay.
        watched: of the tokens before a decision, those whose attention decides.
        stride: tokens that a sequence has room for behind a decision, at least: a sixteenth of the budget if that is
            more.

    Raises:
        ConfigError: `budget` is below 1.
    """

    budget: int
    sinks: int = 32
    recent: int = 128
    watched: int = 32
    stride: int = 64

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"kv_cache_budget must be at least 1, got {self.budget}")

    def room_behind(self, block_size: int) -> int:
        """Tokens that a sequence has room for behind a decision: whole blocks, and no fewer than are watched."""
        tokens = max(self.stride, self.watched, self.budget // _STRIDES_PER_BUDGET)
        return -(-tokens // block_size) * block_size

    def floor(self, block_size: int, window: int = 0) -> int:
        """The least budget: what always stays, room behind a decision and one block to decide about.

        `window` is the most that a layer with a sliding window sees: it must find it whole.
        """
        always = sum(-(-tokens // block_size) for tokens in (self.sinks, self.recent_of(window)))
        return (always + 2) * block_size + self.room_behind(block_size)

    def recent_of(self, window: int) -> int:
        return max(self.recent, window)

    def check(self, block_size: int, window: int = 0) -> None:
        """Raise `ConfigError` with the arithmetic where the budget is below the floor."""
        if self.budget < (floor := self.floor(block_size, window)):
            raise ConfigError(
                f"kv_cache_budget {self.budget} is too little: {self.sinks} first tokens + "
                f"{self.recent_of(window)} last ones, in whole blocks of {block_size}, + 2 blocks + room for "
                f"{self.room_behind(block_size)} = {floor}; give it at least {floor}, or None to keep everything"
            )

    def least_room(self, block_size: int) -> int:
        """Tokens that the cache must have room for, however long a sequence is."""
        return self.budget + block_size

    def kept(self, block_size: int) -> int:
        """Tokens that stay at a decision, at most, in whole blocks."""
        return self.budget // block_size * block_size - self.room_behind(block_size)

    def next(self, prompt_len: int, max_len: int, num_computed: int, num_evicted: int, room: int) -> Decision:
        """The next decision about a sequence; none where it comes too late for any further token.

        `room` is how many tokens the cache holds in all.
        """
        at = num_evicted + self.budget
        if num_computed < prompt_len and prompt_len > at:
            at = min(prompt_len, num_evicted + room)
        return Decision(at, at - self.watched) if at < max_len - 1 else NEVER
