"""Names of tensors against patterns: dotted names in which a component `*` stands for one number."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import Generic, TypeVar

from inference_pio.errors import PluginError

# Names come from files. One with more numbers than any real name has is taken literally: readings double with each.
_MOST_NUMBERS = 4
_MOST_DIGITS = 9

Value = TypeVar("Value")


class PatternTable(Generic[Value]):
    """Pattern -> value. Where several patterns match, the one with fewest stars counts."""

    def __init__(self, patterns: Mapping[str, Value]) -> None:
        self._values = patterns

    def find(self, name: str) -> tuple[Value, tuple[str, ...]] | None:
        """The value of the pattern that matches `name`, and the numbers its stars stand for."""
        if not self._values:
            return None
        for pattern, numbers in _readings(name):
            if pattern in self._values:
                return self._values[pattern], numbers
        return None


def fill_in(pattern: str, numbers: tuple[str, ...]) -> str:
    """The name a pattern stands for: its stars replaced, in order, by `numbers`.

    Raises:
        PluginError: it has not as many stars as there are numbers, so that the two sides of a mapping differ.
    """
    if stars(pattern) != len(numbers):
        raise PluginError(
            f"the weight map's {pattern} needs {len(numbers)} * like the names on its other side"
        )
    left = iter(numbers)
    return ".".join(next(left) if part == "*" else part for part in pattern.split("."))


def stars(pattern: str) -> int:
    return pattern.split(".").count("*")


@lru_cache(
    maxsize=64
)  # one name is looked up in several tables, and a mixture's checkpoint has a hundred thousand
def _readings(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every pattern that could match a name, the most literal first: a.1.b gives a.1.b and a.*.b."""
    parts = name.split(".")
    places = [place for place, part in enumerate(parts) if _is_number(part)]
    if len(places) > _MOST_NUMBERS:
        return [(name, ())]
    readings = []
    for starred in sorted(product((False, True), repeat=len(places)), key=sum):
        chosen = [place for place, is_star in zip(places, starred, strict=True) if is_star]
        pattern = ".".join("*" if place in chosen else part for place, part in enumerate(parts))
        readings.append((pattern, tuple(parts[place] for place in chosen)))
    return readings


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS
