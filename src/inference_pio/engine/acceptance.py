"""How likely a drafted token is to be the one that comes."""

from __future__ import annotations

from collections.abc import Iterable

from inference_pio.engine.drafting import LONGEST_MATCH
from inference_pio.engine.step_costs import DRAFT_COUNTS

# Matches of one class of lengths are taken to be equally good. Before anything is seen: a little less than what text
# that repeats little (this project's pages, in Qwen's tokens) shows.
_FIRST_GUESSES = {2: 0.2, 3: 0.4, 4: 0.55, 6: 0.75, 10: 0.85, 16: 0.9, LONGEST_MATCH: 0.95}
_CLASS_OF = [
    max(0, sum(length >= shortest for shortest in _FIRST_GUESSES) - 1)
    for length in range(LONGEST_MATCH + DRAFT_COUNTS[-1])
]
# As likely as this a draft is not worth the share of a step that it costs, whatever it turns out to be.
LEAST_CHANCE = 0.02


class Acceptance:
    """Rates by match length, moving averages over what was seen.

    Every token that a match foretold is counted, drafted or not: what drafts would have been worth is known without
    making any.
    """

    def __init__(self, memory: int, start: Acceptance | None = None) -> None:
        """`memory` is over how many tokens is averaged; `start` says what to believe at first."""
        self._rates: list[float] = [*_FIRST_GUESSES.values()] if start is None else start._rates.copy()
        self._share = 1.0 / memory

    def record(self, outcomes: Iterable[tuple[int, bool]]) -> None:
        """Match lengths, and whether the token was the one that the match foretold."""
        for length, hit in outcomes:
            group = _CLASS_OF[length]
            self._rates[group] += (hit - self._rates[group]) * self._share

    def chances(self, length: int, num_tokens: int) -> list[float]:
        """For each draft after a match of `length` the probability that it and all before it are accepted.

        Drafts that are less likely than `LEAST_CHANCE` are left out, and with them all behind them.
        """
        result, chance = [], 1.0
        for matched in range(length, length + num_tokens):
            chance *= self._rates[_CLASS_OF[matched]]
            if chance < LEAST_CHANCE:
                break
            result.append(chance)
        return result
