"""Which pairs of techniques have been tested together: data of the package, made by benchmarks/combinations.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Literal

import msgspec

VERSION = 1
_FILE = "combinations.json"
Outcome = Literal["equal", "bounded", "excluded", "never", "failed", "untested"]
Tested = Callable[[str, str], bool]
"""Whether two techniques, by name, have been tested together and give right answers."""


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of two techniques in one model.

    outcome  equal: the answers of the model without them, or, where one is approximate, of that one alone
             bounded: other answers, no further off than the approximate ones alone may add up to
             excluded: they refuse each other; never: nothing that was tried has both at work
             failed: wrong answers; untested: one acts on no machine that was tried
    kl       mean KL divergence in nats from what it was held against; 0 where nothing was run
    reason   of all but the first two
    """

    outcome: Outcome
    kl: float = 0.0
    reason: str = ""


class Combinations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every pair, by the two names in the order of the registry, a space between."""

    version: int
    date: str
    release: str
    techniques: list[str]
    pairs: dict[str, Pair]

    def pair(self, one: str, other: str) -> Pair | None:
        """In either order; None where it is not known at all."""
        return self.pairs.get(f"{one} {other}") or self.pairs.get(f"{other} {one}")

    def tested(self, one: str, other: str) -> bool:
        found = self.pair(one, other)
        return found is not None and found.outcome in ("equal", "bounded")

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def names_of(techniques: list[str]) -> list[tuple[str, str]]:
    """All pairs, in order."""
    return list(combinations(techniques, 2))


@cache
def known() -> Combinations:
    """What the package knows."""
    text = resources.files(__package__).joinpath(_FILE).read_bytes()
    return msgspec.json.decode(text, type=Combinations)


def tested(one: str, other: str) -> bool:
    """By what the package knows."""
    return known().tested(one, other)
